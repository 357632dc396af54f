//! What one client does, one file for each kind of load.

pub mod deliver;
pub mod fetch;
pub mod fill;
pub mod letters;
pub mod lookup;
pub mod reader;
pub mod register;
pub mod send;

use rossby_client::connection::{CallError, Connection, Refusal, SendRpc, Signer};
use rossby_proto::v1;
use rossby_proto::v1::send_outcome::Result as Outcome;
use rossby_seams::random::{Random as _, SeededRandom};

use crate::drive::Fault;

/// Sends envelopes in one request, all of which must be stored.
pub(crate) async fn post(
    connection: &Connection,
    signer: &Signer,
    envelopes: Vec<v1::OutgoingEnvelope>,
) -> Result<(), Fault> {
    try_post(connection, signer, envelopes)
        .await
        .map_err(Fault::from)
}

/// As [`post`], with the whole error.
pub(crate) async fn try_post(
    connection: &Connection,
    signer: &Signer,
    envelopes: Vec<v1::OutgoingEnvelope>,
) -> Result<(), CallError> {
    let count = envelopes.len();
    let request = v1::SendRequest { envelopes };
    let response = connection.call::<SendRpc>(&request, Some(signer)).await?;
    if response.outcomes.len() != count {
        return Err(CallError::BadReply("not an outcome for each envelope"));
    }
    for outcome in response.outcomes {
        match outcome.result {
            Some(Outcome::Sequence(_)) => {}
            Some(Outcome::Refusal(refusal)) => {
                return Err(CallError::Refused(Box::new(Refusal::of_outcome(refusal))));
            }
            None => return Err(CallError::BadReply("an outcome that says nothing")),
        }
    }
    Ok(())
}

/// Cheap chance for choosing a box: no key is made of it.
#[derive(Debug)]
pub(crate) struct Chance(SeededRandom);

impl Chance {
    /// The chance of the client with this number.
    pub(crate) fn of_client(number: usize) -> Self {
        Self(SeededRandom::new(number as u64))
    }

    /// A number below `bound`, which is at least 1.
    pub(crate) fn below(&self, bound: usize) -> usize {
        let mut drawn = [0; 8];
        // This source never fails.
        let _ = self.0.fill(&mut drawn);
        let bound = bound.max(1) as u64;
        usize::try_from(u64::from_le_bytes(drawn) % bound).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_box_is_chosen_and_none_beyond() {
        let chance = Chance::of_client(7);
        let mut chosen = [0; 10];
        for _ in 0..10_000 {
            chosen[chance.below(10)] += 1;
        }
        assert!(
            chosen.iter().all(|times| (800..1200).contains(times)),
            "{chosen:?}"
        );
        assert_eq!(chance.below(0), 0);
    }
}
