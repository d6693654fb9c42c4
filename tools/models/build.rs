//! Sets the flag by which the library's cores take `loom`'s primitives instead of those of `std`: here, and in no other build.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(mainstay_loom)");
    println!("cargo::rustc-cfg=mainstay_loom");
}
