//! Lets the binary's allocator stand before the C++ library's in a static binary.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // The allocator defines `malloc` and C++'s `new` for libzmq as well. A static libstdc++ defines `new` too, in the
    // objects of what the program needs from it, and the linker would refuse to choose: the first definition is the
    // allocator's, which comes before the system's libraries. A dynamic binary has no such question.
    let features = std::env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    if features.split(',').any(|feature| feature == "crt-static") {
        println!("cargo::rustc-link-arg-bins=-Wl,--allow-multiple-definition");
    }
}
