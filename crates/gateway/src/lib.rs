//! lauf-gateway
