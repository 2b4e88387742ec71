//! The configs that ship as examples are ones that load.

use rlaif_core::Config;

#[test]
fn the_configs_of_the_examples_load() {
    for example in ["quickstart", "revise", "sft"] {
        let path = format!("{}/../../examples/{example}/rlaif.toml", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        if let Err(error) = Config::load(&text, &[], |_| None) {
            panic!("{example}: {error}");
        }
    }
}
