// SPDX-License-Identifier: Apache-2.0
//! The dependency solver: from the records of package feeds and a request to the set of packages
//! that fulfils it. Pure: no files, no network, no processes.
//!
//! ```
//! use lama_solver::{Record, Request, Universe};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let field = |name: &str| match name {
//!     "Package" => Some("hello"),
//!     "Version" => Some("2.10-3"),
//!     "Architecture" => Some("amd64"),
//!     "Filename" => Some("pool/main/h/hello/hello_2.10-3_amd64.deb"),
//!     "Size" => Some("53080"),
//!     "SHA256" => Some("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
//!     _ => None,
//! };
//! let universe = Universe::new([Record::from_fields(field, &"debian".into())?], "amd64");
//! let request = Request { packages: vec!["hello".into()], ..Request::default() };
//! assert_eq!(universe.resolve(&request)?.len(), 1);
//! # Ok(())
//! # }
//! ```

mod error;
mod explain;
mod greedy;
mod record;
pub mod relation;
mod request;
mod sat;
mod session;
mod universe;
pub mod version;

pub use error::{Error, Result};
pub use record::{IsEssential, MultiArch, Priority, Record, RecordError, RelationField, Stanza};
pub use relation::{RelationError, Relations};
pub use request::{Dependencies, Essential, Recommends, Request};
pub use universe::Universe;
