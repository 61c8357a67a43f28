//! Where do sealed memory units live?
