//! The calls, one file each. Each reads parse -> verify -> authorise -> dispatch, and starts where who is
//! asking is already proven ([`crate::mailbox`]); Register, Authorize, JoinBox, LookupRecovery and Recover,
//! which come before any token, verify the device's or the recovery key's signature themselves.

mod accept;
mod acknowledge;
mod add_identifier;
mod authorize;
mod block;
mod claiming;
mod code;
mod delete_account;
mod extend_chain;
mod fetch;
mod get_map;
mod join_box;
mod keep_identifier;
mod list_identifiers;
mod lookup_key;
mod lookup_recovery;
mod notify;
mod recover;
mod register;
mod releasing;
mod remove_identifier;
mod report;
mod resetting;
mod send;
mod set_profile;
mod set_ttl;
mod subscribe;
mod token;
mod update_key;

pub(crate) use accept::accept;
#[cfg(any(test, fuzzing))]
pub(crate) use accept::{boxes as parse_contacts, parse as parse_acceptance};
pub(crate) use acknowledge::acknowledge;
pub(crate) use add_identifier::add_identifier;
pub(crate) use authorize::authorize;
pub(crate) use block::block;
pub(crate) use code::{SealedCode, code_context};
pub(crate) use delete_account::delete_account;
pub(crate) use extend_chain::extend_chain;
pub(crate) use fetch::fetch;
pub(crate) use get_map::get_map;
pub(crate) use join_box::join_box;
#[cfg(any(test, fuzzing))]
pub(crate) use join_box::parse_and_verify as parse_joining;
pub(crate) use keep_identifier::keep_identifier;
pub(crate) use list_identifiers::list_identifiers;
pub(crate) use lookup_key::lookup_key;
pub(crate) use lookup_recovery::lookup_recovery;
#[cfg(any(test, fuzzing))]
pub(crate) use lookup_recovery::parse_and_verify as parse_recovery_lookup;
pub(crate) use notify::notify;
#[cfg(any(test, fuzzing))]
pub(crate) use notify::parse as parse_signal;
#[cfg(any(test, fuzzing))]
pub(crate) use recover::parse_and_verify as parse_recovery;
pub(crate) use recover::recover;
#[cfg(any(test, fuzzing))]
pub(crate) use register::parse_and_verify as parse_registration;
pub(crate) use register::register;
pub(crate) use releasing::Leaving;
pub(crate) use remove_identifier::remove_identifier;
pub(crate) use report::report;
pub(crate) use resetting::{former_owner, lose};
pub(crate) use send::send;
#[cfg(any(test, fuzzing))]
pub(crate) use set_profile::parse as parse_profile;
pub(crate) use set_profile::set_profile;
pub(crate) use set_ttl::set_ttl;
pub(crate) use subscribe::subscribe;
pub(crate) use update_key::update_key;

pub use token::TOKEN_INFO;
