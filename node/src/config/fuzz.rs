//! What holds for configuration files and addresses, whatever they are. For the fuzzer
//! (`fuzz/targets/config.rs`) and for the test that replays its corpus; never in a release.

use super::{Config, HostPort};

/// The first byte says what the rest is: 0 a TOML file, 1 a host with a port. Says whether it was
/// accepted; panics if something that must hold does not.
pub fn config(data: &[u8]) -> bool {
    let Some((mode, rest)) = data.split_first() else {
        return false;
    };
    let Ok(text) = std::str::from_utf8(rest) else {
        return false;
    };
    if mode % 2 == 1 {
        let Ok(address) = text.parse::<HostPort>() else {
            return false;
        };
        assert_eq!(address.to_string(), text);
        return true;
    }
    let Ok(found) = toml::from_str::<Config>(text) else {
        return false;
    };
    // What TOML can't write (a number beyond i64) could not have been read either.
    let written = toml::to_string(&found);
    let again = written.map(|written| toml::from_str::<Config>(&written));
    assert!(again.is_ok_and(|again| again.is_ok_and(|again| again == found)));
    true
}

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::replay::{replay, seed, with};
    use super::*;

    #[test]
    fn the_corpus_of_configurations_holds() {
        replay("config", config);
    }

    #[test]
    fn a_real_configuration_is_accepted() {
        let defaults = toml::to_string(&Config::default()).unwrap();
        seed(
            "config",
            "seed-defaults",
            &with(0, defaults.as_bytes()),
            config,
        );
        let some = "node = 3\ndata = \"/var/lib/rossby\"\n\n[clients]\nlisten = \"[::]:7470\"\nadvertise = \"a.example:7470\"\n\n[peers]\nlisten = \"0.0.0.0:7472\"\n\n[courier]\nkind = \"file\"\nfile = \"/c\"\n\n[log]\nformat = \"json\"\n";
        seed("config", "seed-some", &with(0, some.as_bytes()), config);
        seed(
            "config",
            "seed-name",
            &with(1, b"node1.example.org:7470"),
            config,
        );
        seed(
            "config",
            "seed-address",
            &with(1, b"[2001:db8::1]:7470"),
            config,
        );
    }
}
