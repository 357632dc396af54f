//! Reports of unwanted mail: who was reported, and by how many.

use serde::{Deserialize, Serialize};

use crate::ids::BoxId;
use crate::mac::hmac_sha256;
use crate::wire::Writer;

/// Stands for one box's report of another: the first half of the HMAC-SHA256 of both under the cluster's pepper. It is the
/// same each time, and who has the tables alone can't tell from it who reported whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReportMark(pub [u8; 16]);

impl ReportMark {
    /// The mark of a report.
    #[must_use]
    pub fn of(pepper: &[u8; 32], reported: &BoxId, reporter: &BoxId) -> Self {
        let message = Writer::labelled("rossby report v1")
            .fixed(reported.as_bytes())
            .fixed(reporter.as_bytes())
            .finish();
        let mac = hmac_sha256(pepper, &message);
        let mut mark = [0; 16];
        mark.copy_from_slice(&mac[..16]);
        Self(mark)
    }
}
