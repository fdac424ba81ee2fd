//! The whole system, from outside: built binaries over real sockets, one file per behaviour.
