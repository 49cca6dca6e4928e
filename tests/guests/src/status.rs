//! Result codes of hypercalls and grants, negated where the ABI negates them (xen/include/public/errno.h).

pub const EPERM: i32 = -1;
pub const ENOENT: i32 = -2;
pub const ESRCH: i32 = -3;
pub const ENXIO: i32 = -6;
pub const E2BIG: i32 = -7;
pub const EACCES: i32 = -13;
pub const EFAULT: i32 = -14;
pub const EBUSY: i32 = -16;
pub const EEXIST: i32 = -17;
pub const EINVAL: i32 = -22;
pub const ENOSPC: i32 = -28;
pub const ENOSYS: i32 = -38;
pub const EOPNOTSUPP: i32 = -95;

/// Grant status codes (xen/include/public/grant_table.h GNTST_*).
pub mod grant {
    pub const OKAY: i16 = 0;
    pub const GENERAL_ERROR: i16 = -1;
    pub const BAD_DOMAIN: i16 = -2;
    pub const BAD_GNTREF: i16 = -3;
    pub const BAD_HANDLE: i16 = -4;
    pub const BAD_VIRT_ADDR: i16 = -5;
    pub const PERMISSION_DENIED: i16 = -8;
    pub const BAD_PAGE: i16 = -9;
    pub const BAD_COPY_ARG: i16 = -10;
}

/// PSCI return values (DEN 0022 5.2.2).
pub mod psci {
    pub const SUCCESS: i32 = 0;
    pub const NOT_SUPPORTED: i32 = -1;
    pub const INVALID_PARAMETERS: i32 = -2;
    pub const ALREADY_ON: i32 = -4;
}
