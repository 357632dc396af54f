//! How many files the process may have open: connections and files of the store share one limit, and the
//! soft limit that most systems set (1024) is less than a node needs.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

/// What a node may have open beside the connections of clients: the bases of 256 partitions, the log, sled,
/// checkpoints under way, peers and its other sockets.
const BESIDE_CLIENTS: u64 = 1024;

/// Raises the limit as far as the process may, and warns if that is too little for so many connections.
pub(super) fn raise_limit(max_connections: u32) {
    let limit = raised();
    let needed = u64::from(max_connections) + BESIDE_CLIENTS;
    match limit {
        Some(limit) if limit < needed => warn!(
            limit,
            needed,
            "the limit of open files is too low for clients.max_connections: raise it (LimitNOFILE of \
             systemd, ulimit -Hn), or allow fewer connections"
        ),
        limit => info!(limit, "open files are limited"),
    }
}

/// Sets the soft limit to the hard one; what holds then, `None` for no limit.
fn raised() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current;
    }
    let wanted = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        warn!(%error, "the limit of open files could not be raised");
    }
    getrlimit(Resource::Nofile).current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        let low = Rlimit {
            current: Some(256),
            maximum,
        };
        setrlimit(Resource::Nofile, low).unwrap();
        assert_eq!(raised(), maximum);
        assert_eq!(getrlimit(Resource::Nofile).current, maximum);
    }
}
