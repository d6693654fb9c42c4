//! A second build of this program, with the peers' metrics.
//!
//! They are a feature of the peers' that is off by default, and that costs something with no recorder installed too. So the rows
//! without a recorder are measured without the feature, and those with one by another build.

use std::env;
use std::path::PathBuf;
use std::process::Command;

/// Builds it, beside this one, and answers where it is.
///
/// # Errors
///
/// Why that was not possible, in a line.
pub(crate) fn build() -> Result<PathBuf, String> {
    let (Some(cargo), Some(manifest)) = (env::var_os("CARGO"), env::var_os("CARGO_MANIFEST_PATH")) else {
        return Err("its metrics need a second build, which is made when cargo runs this".to_owned());
    };
    let program = env::current_exe().map_err(|error| error.to_string())?;
    let target = program.parent().ok_or("this program is nowhere")?.join("peers-metrics");
    eprintln!("building the peers with their metrics, for the rows with a recorder (a minute at first)");
    let built = Command::new(cargo)
        .args(["build", "--release", "--quiet", "--features", "peers-metrics", "--manifest-path"])
        .arg(manifest)
        .arg("--target-dir")
        .arg(&target)
        .status();
    match built {
        Ok(status) if status.success() => {
            Ok(target.join("release").join(program.file_name().ok_or("this program has no name")?))
        }
        _ => Err("its metrics need a second build, which failed".to_owned()),
    }
}
