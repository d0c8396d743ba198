//! lauf-control
