//! No policy at all: what the other images are compared with.

#![no_std]
#![no_main]

costs::flash_image!(());
