//! Definitions of ABI structures and numbers that are checked twice.
//!
//! [`abi_struct!`](crate::abi_struct) and [`abi_constants!`](crate::abi_constants) state offsets and values next to the
//! names in Xen's headers. The compiler checks the offsets on every build; `tests/abi_layout.rs` makes an Arm C
//! compiler compare the same tables with Debian's headers.

/// One structure as C sees it.
#[derive(Debug)]
pub struct Layout {
    /// The type's name in C, such as `struct gnttab_copy`.
    pub c_name: &'static str,
    /// Bytes.
    pub size: usize,
    /// Alignment in bytes.
    pub align: usize,
    /// The fields, without padding.
    pub fields: &'static [Field],
}

/// One field as C sees it.
#[derive(Debug)]
pub struct Field {
    /// The member's designator in C.
    pub c_name: &'static str,
    /// Bytes from the structure's start.
    pub offset: usize,
    /// Bytes.
    pub size: usize,
}

/// A number as C sees it.
#[derive(Debug)]
pub struct Constant {
    /// An expression in C.
    pub c_name: &'static str,
    /// Its value.
    pub value: i64,
}

/// Returns the size of the type that a field accessor returns a reference to.
pub const fn size_of_field<S, F>(_: fn(&S) -> &F) -> usize {
    size_of::<F>()
}

/// Defines a `repr(C)` structure without hidden padding: `offset "C name" => field: type`. Padding has the C name `_`.
#[macro_export]
macro_rules! abi_struct {
    (
        $(#[$meta:meta])*
        pub struct $name:ident : $c_name:literal, $size:literal, align $align:literal {
            $( $(#[$fmeta:meta])* $offset:literal $c_field:tt => $field:ident : $type:ty ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(
            Clone, Copy, Debug, zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable,
        )]
        #[repr(C)]
        #[allow(missing_docs)] // only padding has none
        pub struct $name {
            $( $(#[$fmeta])* pub $field: $type, )*
        }

        impl $name {
            /// The structure with all bytes zero.
            pub const ZERO: Self = zerocopy::transmute!([0u8; $size]);

            /// The layout that the C headers must agree with.
            pub const LAYOUT: $crate::abi::layout::Layout = $crate::abi::layout::Layout {
                c_name: $c_name,
                size: size_of::<Self>(),
                align: align_of::<Self>(),
                fields: &[ $( $crate::abi::layout::Field {
                    c_name: $crate::abi_struct!(@name $c_field),
                    offset: core::mem::offset_of!(Self, $field),
                    size: $crate::abi::layout::size_of_field(|s: &Self| &s.$field),
                }, )* ],
            };
        }

        const _: () = {
            assert!(size_of::<$name>() == $size);
            assert!(align_of::<$name>() == $align);
            $( assert!(core::mem::offset_of!($name, $field) == $offset); )*
        };
    };
    (@name _) => { "" };
    (@name $c_field:literal) => { $c_field };
}

/// Defines numbers together with the C expression that they must equal.
#[macro_export]
macro_rules! abi_constants {
    ( $( $(#[$meta:meta])* $name:ident : $type:ty = $value:expr, $c_name:literal; )* ) => {
        $( $(#[$meta])* pub const $name: $type = $value; )*

        /// The layout that the C headers must agree with.
        pub const CONSTANTS: &[$crate::abi::layout::Constant] = &[
            $( $crate::abi::layout::Constant { c_name: $c_name, value: $name as i64 }, )*
        ];
    };
}
