//! The config that ships with the quickstart is one that loads.

use rlaif_core::Config;

#[test]
fn the_quickstart_config_loads() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/quickstart/rlaif.toml");
    let text = std::fs::read_to_string(path).unwrap();
    if let Err(error) = Config::load(&text, &[], |_| None) {
        panic!("{error}");
    }
}
