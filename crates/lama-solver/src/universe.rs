// SPDX-License-Identifier: Apache-2.0
//! Every package there is, and the way into the solver.

use std::collections::HashMap;

use crate::{Record, Request, Result};

/// Every package of every feed, for one architecture.
#[derive(Debug)]
pub struct Universe {
    arch: Box<str>,
    records: Vec<Record>,
    names: HashMap<Box<str>, Vec<u32>>,
}

impl Universe {
    /// Takes the records of all feeds. Those of other architectures than `arch` (Debian's name,
    /// such as `arm64`) and `all` are left out: a root holds one architecture.
    pub fn new(records: impl IntoIterator<Item = Record>, arch: &str) -> Self {
        let records = records
            .into_iter()
            .filter(|r| r.architecture() == arch || r.architecture() == "all")
            .collect();
        Self {
            arch: arch.into(),
            records,
            names: HashMap::new(),
        }
    }

    /// The architecture.
    pub fn arch(&self) -> &str {
        &self.arch
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The records of a name, highest version first.
    pub fn find(&self, name: &str) -> impl Iterator<Item = &Record> {
        let ids = self.names.get(name).map(Vec::as_slice).unwrap_or_default();
        ids.iter()
            .filter_map(|i| self.records.get(usize::try_from(*i).ok()?))
    }

    /// The packages that fulfil the request, sorted by name. The same records in the same order
    /// give the same answer.
    ///
    /// # Errors
    /// Names that no feed has, relations that cannot all hold.
    pub fn resolve(&self, request: &Request) -> Result<Vec<Record>> {
        let _ = request;
        Err(crate::Error::Unsatisfiable {
            explanation: "the solver is being written".into(),
            hint: String::new(),
        })
    }
}
