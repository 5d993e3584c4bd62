//! Links the function without its unwind tables.
//!
//! A release build aborts where it panics, so that nobody ever reads the tables that tell how to unwind the
//! stack. They come all the same, from each function that would have something to clean up, and would be
//! a tenth of the package. No flag of the compiler leaves them out, but the linker does as it is told.
//!
//! mold doesn't understand such a script; where it links, the tables stay.

use std::path::Path;
use std::{env, fs, io};

/// An addition to the linker's own script, for GNU's linker and LLVM's.
const WITHOUT_UNWIND_TABLES: &str = "\
SECTIONS { /DISCARD/ : { *(.eh_frame) *(.eh_frame_hdr) *(.gcc_except_table .gcc_except_table.*) } }
INSERT AFTER .rodata;
";

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    let has_script = is("CARGO_CFG_TARGET_OS", "linux") && !flags.contains("mold");
    if is("PROFILE", "release") && has_script {
        let folder = env::var_os("OUT_DIR").unwrap_or_default();
        let script = Path::new(&folder).join("without-unwind-tables.ld");
        fs::write(&script, WITHOUT_UNWIND_TABLES)?;
        println!(
            "cargo::rustc-link-arg-bin=image-usage-auditor=-Wl,-T,{}",
            script.display()
        );
    }
    Ok(())
}
