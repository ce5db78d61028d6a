// SPDX-License-Identifier: Apache-2.0
//! How a machine stands with its keys, for people and for other programs.

use crate::{Result, fs};
use serde::{Deserialize, Serialize};

/// Where what came of it is left for others.
pub const PATH: &str = "/run/lamadist/keys.json";
/// How the firmware stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// It trusts the keys that it should.
    Current,
    /// Secure Boot is off, or the system says nothing of `db`.
    Unknown,
    /// The next start brings what was changed.
    Restart,
    /// A change has begun elsewhere, and is not due here yet.
    Waiting,
    /// A change is due that the next run takes up.
    Due,
    /// Somebody has to do something.
    Stuck,
}

/// How a machine stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct State {
    /// The policy key of the running system ([`policy::fingerprint`]).
    pub policy_key: Option<String>,
    /// Volumes and secrets that a replaced policy key opens, too, or alone.
    pub older: Vec<String>,
    /// Whether the systems of all slots are signed by the policy key.
    pub everywhere: bool,
    /// The firmware's `db`.
    pub firmware: Standing,
    /// That in words, where there is something to say.
    pub firmware_note: String,
    /// Why the last run did not come to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl State {
    /// What the last run in this boot left; none where there was none.
    pub fn last() -> Option<Self> {
        let data = fs::read_optional(PATH).ok()??;
        serde_json::from_slice(&data).ok()
    }

    /// Leaves it for others.
    ///
    /// # Errors
    /// `/run` cannot be written.
    pub fn leave(&self) -> Result<()> {
        fs::write(PATH, serde_json::to_vec(self).unwrap_or_default(), 0o644)
    }

    /// For people.
    pub fn text(&self) -> String {
        let short = |k: &str| k.get(..16).unwrap_or(k).to_owned();
        let key = self.policy_key.as_deref().map(short);
        let mut out = format!(
            "policy key  {}\n",
            key.as_deref()
                .unwrap_or("none: this boot has no signed PCR policy")
        );
        if !self.older.is_empty() {
            out += &format!(
                "            a replaced one still opens {}",
                self.older.join(", ")
            );
            out += match self.everywhere {
                true => "\n",
                false => ":\n            it is let go when both slots are signed by the new one\n",
            };
        }
        let words = match self.firmware {
            Standing::Current => "db holds the keys that it should",
            Standing::Unknown => "db is not looked at",
            Standing::Restart => "db has changed; the next start goes by it",
            Standing::Waiting => "db waits",
            Standing::Due => "db is to be changed",
            Standing::Stuck => "db is not as it should be",
        };
        out += &format!("firmware    {words}\n");
        if !self.firmware_note.is_empty() {
            out += &format!("            {}\n", self.firmware_note);
        }
        if let Some(e) = &self.error {
            out += &format!("            {e}\n");
        }
        out
    }
}
