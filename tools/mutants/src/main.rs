//! Plants one fault after the other in a copy of the library, and runs the models that must see it.
//!
//! Fails when a fault survives, when it does not compile, and when the text that it replaces is not there exactly once: then
//! the code has changed, and `list.rs` has to follow. A word as argument plants only the faults whose name or file holds it.
//!
//! The copy, and what is built of it, is in `target/mutants`.

mod list;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs, io};

use list::MUTANTS;

/// A planted fault.
struct Mutant {
    /// What is wrong with it.
    name: &'static str,
    file: &'static str,
    /// What stands there, exactly once.
    text: &'static str,
    /// What is put in its place.
    fault: &'static str,
    /// The model that must see it.
    model: &'static str,
}

/// What became of a run of the models.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Run {
    Passed,
    Failed,
    /// It did not compile, or no model has the name.
    Invalid,
}

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    match run(&env::args().nth(1).unwrap_or_default()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(bad) => {
            eprintln!("mutants: {bad} were not seen");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("mutants: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Plants the faults that `word` selects, and returns how many were not seen.
fn run(word: &str) -> Result<usize> {
    let root = fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))?;
    let (target, tree) = (root.join("target/mutants"), root.join("target/mutants/tree"));
    copy_tree(&root, &tree)?;
    let chosen: Vec<_> = MUTANTS.iter().filter(|it| it.name.contains(word) || it.file.contains(word)).collect();
    if chosen.is_empty() {
        return Err(format!("no fault has `{word}` in its name or file").into());
    }
    // All texts first: a list that has fallen behind is found out in a moment.
    let planted = chosen.iter().map(|mutant| plant(&tree, mutant)).collect::<Result<Vec<_>>>()?;

    let mut models: Vec<_> = chosen.iter().map(|mutant| mutant.model).collect();
    models.sort_unstable();
    models.dedup();
    if models_run(&tree, &target, &models)? != Run::Passed {
        return Err("the models do not hold without a fault, or one of them is not there".into());
    }

    let mut bad = 0;
    for (mutant, (sound, faulty)) in chosen.iter().zip(planted) {
        let file = tree.join(mutant.file);
        fs::write(&file, faulty)?;
        let verdict = match models_run(&tree, &target, &[mutant.model])? {
            Run::Failed => "killed",
            Run::Passed => "SURVIVED",
            Run::Invalid => "INVALID",
        };
        bad += usize::from(verdict != "killed");
        println!("{verdict:8}  {}: {}", mutant.file, mutant.name);
        fs::write(&file, sound)?;
    }
    println!("{} of {} were seen", chosen.len() - bad, chosen.len());
    Ok(bad)
}

/// The file's text as it is, and with the fault.
fn plant(tree: &Path, mutant: &Mutant) -> Result<(String, String)> {
    let sound = fs::read_to_string(tree.join(mutant.file))?;
    let found = sound.matches(mutant.text).count();
    if found != 1 {
        return Err(format!("{}: `{}`: its text is there {found} times, not once", mutant.file, mutant.name).into());
    }
    let faulty = sound.replacen(mutant.text, mutant.fault, 1);
    Ok((sound, faulty))
}

fn models_run(tree: &Path, target: &Path, models: &[&str]) -> Result<Run> {
    let output = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["test", "--lib", "--manifest-path"])
        .arg(tree.join("tools/models/Cargo.toml"))
        .arg("--target-dir")
        .arg(target)
        .args(["--", "--exact"])
        .args(models)
        .env("RUST_BACKTRACE", "0")
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let ran = format!("running {} test", models.len());
    Ok(match output.status.success() {
        true if text.contains(&ran) => Run::Passed,
        false if text.contains("test result: FAILED") => Run::Failed,
        _ => {
            eprintln!("{}", String::from_utf8_lossy(&output.stderr));
            Run::Invalid
        }
    })
}

/// Copies what the models are built from.
fn copy_tree(root: &Path, tree: &Path) -> io::Result<()> {
    if tree.exists() {
        fs::remove_dir_all(tree)?;
    }
    for part in ["src", "tools/models"] {
        copy(&root.join(part), &tree.join(part))?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target: PathBuf = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
