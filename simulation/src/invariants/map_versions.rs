//! The map: what a process takes for the newest one never goes back, and a version is the same map wherever it
//! is known.

use std::collections::BTreeMap;

use rossby_domain::ids::MapVersion;

use super::Invariant;
use crate::known::Known;
use crate::observe::{Digest, Observation, What, Who};

/// See the file's head.
#[derive(Debug, Default)]
pub struct MapVersions {
    maps: BTreeMap<MapVersion, Digest>,
    /// What each process knew last.
    known: BTreeMap<Who, MapVersion>,
}

impl Invariant for MapVersions {
    fn name(&self) -> &'static str {
        "map versions"
    }

    fn observe(&mut self, observation: &Observation, _: &Known) -> Result<(), String> {
        let who = observation.who;
        let (version, content) = match &observation.what {
            What::KnowsMap {
                version, content, ..
            } => (*version, *content),
            // What it had not written down yet it has to ask for again.
            What::Crashed { .. } | What::Wiped => {
                self.known.remove(&who);
                return Ok(());
            }
            _ => return Ok(()),
        };
        let map = *self.maps.entry(version).or_insert(content);
        if map != content {
            return Err(format!(
                "map {version} is {map} on one node and {content} on {who}"
            ));
        }
        match self.known.insert(who, version) {
            Some(before) if before >= version => Err(format!(
                "{who} knew map {before} and takes map {version} for the newest"
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::invariants::story::{Story, caught, node};
    use crate::observe::Loss;

    fn knows(story: &mut Story, number: u64, version: u64, content: &str) {
        let what = What::KnowsMap {
            version: MapVersion(version),
            nodes: BTreeSet::new(),
            content: Digest::of(content.as_bytes()),
        };
        story.push(node(number), what);
    }

    #[test]
    fn newer_maps_are_legal_and_a_crash_may_lose_one() {
        let mut story = Story::default();
        for (number, version) in [(1, 1), (1, 2), (2, 1), (1, 4)] {
            knows(&mut story, number, version, &version.to_string());
        }
        story.push(
            node(1),
            What::Crashed {
                loss: Loss::Unsynced,
            },
        );
        knows(&mut story, 1, 2, "2");
        assert_eq!(caught(MapVersions::default(), &story), None);
    }

    #[test]
    fn an_older_map_is_caught() {
        for then in [1, 2] {
            let mut story = Story::default();
            knows(&mut story, 1, 2, "2");
            knows(&mut story, 1, then, &then.to_string());
            let violation = caught(MapVersions::default(), &story).unwrap();
            assert!(violation.what.contains("for the newest"), "{violation}");
        }
    }

    #[test]
    fn two_maps_of_one_version_are_caught() {
        let mut story = Story::default();
        knows(&mut story, 1, 2, "one");
        knows(&mut story, 2, 2, "another");
        let violation = caught(MapVersions::default(), &story).unwrap();
        assert!(violation.what.contains("on one node"), "{violation}");
    }
}
