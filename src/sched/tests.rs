mod machine;
mod properties;
mod rules;
mod shares;
