//! What the images and those whom the host program plays agree on: the hub and its sensor, [Modbus RTU](modbus) and the sensor's address and
//! registers; a device and its server, the [uplink]. And what the [flaky sensor](sensor) is like, wherever it is played: by the host in real
//! time, or by an image in [virtual time](endurance).

#![no_std]

pub mod endurance;
pub mod modbus;
pub mod sensor;
pub mod uplink;

/// The sensor's address on the bus.
pub const DEVICE: u8 = 17;

/// Holds the temperature in tenths of a degree, or [`END_OF_RUN`].
pub const TEMPERATURE: u16 = 0x0001;

/// What the sensor can measure. A value outside of it was damaged on its way, and not noticed.
pub const PLAUSIBLE: core::ops::RangeInclusive<u16> = 150..=350;

/// Read from [`TEMPERATURE`] when the sensor has played its whole script.
pub const END_OF_RUN: u16 = 0xFFFF;
