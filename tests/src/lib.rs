//! lauf-tests
