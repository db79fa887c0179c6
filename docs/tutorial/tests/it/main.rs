//! Each step of the tutorial, started as the reader starts it and asked what the page asks.

mod service;
mod steps;
