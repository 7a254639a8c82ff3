//! Who may do what, over both transports: tokens, tenants, rates, and room.

mod engines;
mod limits;
mod overload;
mod reload;
mod rig;
mod slow;
mod streams;
mod tenants;
mod tokens;
