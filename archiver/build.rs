//! Tells the program for which target it is built: the default target of native handlers.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = std::env::var("TARGET").unwrap_or_default();
    println!("cargo::rustc-env=ZOO_TARGET={target}");
}
