//! A program that is its own shim: it calls the hook first in `main`.

fn main() {
    windlass_shim::main_if_shim();
    println!("This process was not started as a shim, so it does its own work.");
}
