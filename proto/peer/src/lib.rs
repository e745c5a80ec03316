//! What every program of the federation needs to be a peer of the others.
