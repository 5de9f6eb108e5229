//! The configuration file, from the outside: what is accepted, what is refused and how.

mod bad_input;
mod folder;
mod rendered;
