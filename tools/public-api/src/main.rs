//! Lists the public API of mainstay with all features, and compares it with `public-api.txt`.
//!
//! `--write` makes the listing anew. The listing is read from rustdoc's JSON, whose flag is unstable: the documentation is
//! built with `RUSTC_BOOTSTRAP=1`, which changes nothing else, and nothing that is shipped is built that way.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::{env, fs};

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("public-api: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether the listing is as it should be.
fn run() -> Result<bool, Box<dyn std::error::Error>> {
    let write = match env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [flag] if flag == "--write" => true,
        other => return Err(format!("unknown arguments {other:?}; there is only `--write`").into()),
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = root.join("target/public-api");
    let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["rustdoc", "--quiet", "--lib", "--all-features", "--target-dir"])
        .arg(&target)
        .args(["--", "-Z", "unstable-options", "--output-format", "json", "--cap-lints", "allow"])
        .env("RUSTC_BOOTSTRAP", "1")
        .env_remove("RUSTDOCFLAGS")
        .current_dir(&root)
        .status()?;
    if !status.success() {
        return Err("cargo rustdoc failed".into());
    }
    let api = public_api::Builder::from_rustdoc_json(target.join("doc/mainstay.json"))
        .omit_blanket_impls(true)
        .omit_auto_trait_impls(true)
        .omit_auto_derived_impls(true)
        .build()?;
    // What `pin_project!` generates is no promise of ours.
    let lines: Vec<String> = api.items().map(ToString::to_string).filter(|line| !line.contains("__private")).collect();
    let listing = lines.join("\n") + "\n";

    let path = root.join("public-api.txt");
    if write {
        fs::write(&path, listing)?;
        return Ok(true);
    }
    let recorded = fs::read_to_string(&path)?;
    for gone in recorded.lines().filter(|line| !lines.iter().any(|now| now == line)) {
        println!("- {gone}");
    }
    let recorded_lines: Vec<&str> = recorded.lines().collect();
    for new in lines.iter().filter(|line| !recorded_lines.contains(&line.as_str())) {
        println!("+ {new}");
    }
    let same = recorded == listing;
    if !same {
        println!("the public API differs from public-api.txt; if that is meant:");
        println!("    cargo run --manifest-path tools/public-api/Cargo.toml -- --write");
    }
    Ok(same)
}
