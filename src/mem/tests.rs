use super::Memory;
