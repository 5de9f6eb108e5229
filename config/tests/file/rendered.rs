//! What `render` writes loads as what it was given.

use std::path::Path;

use crate::folder::Folder;
use holdfast_config::{Config, Health, Unit, UnitControl, Vip, Watchdog, load, load_without_keys, render};
use proptest::prelude::*;

fn again(config: &Config) -> Config {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("holdfast.toml");
    std::fs::write(&file, render(config)).unwrap();
    let mut loaded = load_without_keys(&file).unwrap_or_else(|error| panic!("{error}\n{}", render(config)));
    loaded.file.clone_from(&config.file);
    loaded
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

#[test]
fn a_good_configuration() {
    let folder = Folder::good();
    let config = load(&folder.config()).unwrap();
    folder.write(&render(&config));
    assert_eq!(load(&folder.config()).unwrap(), config);
    let text = std::fs::read_to_string(folder.config()).unwrap();
    assert!(
        text.contains("\nkey = \"node.key\"\n"),
        "a folder that is copied elsewhere must still fit together: {text}"
    );
}

#[test]
fn without_vip_and_units() {
    let folder = Folder::good();
    let config = Config {
        vip: None,
        watchdog: None,
        units: Vec::new(),
        ..load(&folder.config()).unwrap()
    };
    folder.write(&render(&config));
    assert_eq!(load(&folder.config()).unwrap(), config);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn any_configuration(argument in "\\PC*", mount in "/[ -~&&[^/.]]{1,20}x", failures in 1u32..100, renew in 50u64..200) {
        let folder = Folder::good();
        let mut config = load(&folder.config()).unwrap();
        config.tls.ca = Path::new("/etc/pki/ca.pem").to_path_buf();
        (config.tls.cert, config.tls.key) = (config.tls.ca.clone(), config.tls.ca.clone());
        config.mount.path = mount.into();
        let start = words(&["/bin/sh", "-c", &argument, "\"'\\\n\t"]);
        let control = UnitControl::Command { stop: start.clone(), status: start.clone(), kill: start.clone(), start };
        let health = Some(Health::Command(words(&["/bin/true", &argument])));
        config.units.push(Unit { health, health_failures: failures, ..Unit::new("odd", control) });
        config.watchdog = Some(Watchdog::new("/dev/watchdog1"));
        config.vip = config.vip.map(|vip| Vip { renew_every: std::time::Duration::from_millis(renew), ..vip });
        prop_assert_eq!(again(&config), config);
    }
}
