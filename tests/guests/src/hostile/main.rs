//! A hostile guest: attacks on the hypervisor from a domU, one function and one line in a table for each.
//!
//! An attack holds when what came of it is an answer of the ABI, an exception of the guest's own, or nothing; what else there
//! was to come of it (dom0 stands still, memory is lost, the hypervisor is down) dom0 looks at: tests/dom0/hostile.sh. It
//! needs four vCPUs and 128 MiB. Boot arguments beside those of all guests: `seed=` (other numbers by chance), `pair=first`
//! or `pair=second` (the attacks of two domains that work together), `end=` (it dies in the middle of something, `ends.rs`).
//!
//! It is no test of the ABI: where that leaves a choice, an attack takes any answer.
#![no_std]
#![no_main]

mod calls;
mod common;
mod ends;
mod floods;
mod instructions;
mod interrupts;
mod lending;
mod pages;
mod pairs;
mod ports;
mod races;
mod rivals;

use guests::harness::{Test, run};
use guests::platform;

macro_rules! attacks {
    ($($room:ident: $($name:ident),* $(,)?;)*) => {
        &[$($((concat!(stringify!($room), "::", stringify!($name)), $room::$name)),*),*]
    };
}

/// By one domain.
const ATTACKS: &[Test] = attacks! {
    calls:
        every_number_without_arguments,
        every_number_with_all_bits,
        every_operation_with_pointers_to_nowhere,
        a_device_is_no_buffer,
        every_immediate_of_hvc_is_undefined,
        every_immediate_of_smc_is_harmless,
        user_mode_makes_no_call,
        user_mode_makes_no_call_in_loops,
        arguments_across_the_end_of_memory,
        answers_into_read_only_memory,
        answers_into_a_read_only_grant,
        answers_into_a_writable_grant,
        answers_into_pages_of_the_hypervisor,
        counts_that_wrap,
        lists_of_65535_pages,
        multicalls_within_multicalls,
        multicalls_of_thousands,
        answers_about_the_version_have_no_stale_bytes,
        domctl_is_not_for_guests,
        sysctl_is_not_for_guests,
        platform_op_is_not_for_guests,
        hypfs_is_not_for_guests,
        calls_that_xen_has_elsewhere,
        parameters_of_others_and_of_the_toolstack,
        vcpu_info_in_places_that_are_none,
        run_state_in_places_that_are_none,
        vcpu_operations_on_vcpus_that_are_none,
        watchdogs_at_the_end_of_time,
        polls_of_ports_that_are_none,
        others_are_not_shut_down,
        the_console_of_the_hypervisor_is_not_for_guests,
        tables_that_lead_nowhere,
        tables_that_lead_to_devices,
        calls_by_chance;
    pages:
        extents_of_every_order,
        pages_at_the_edges_of_the_map,
        shared_pages_at_the_edges_of_the_map,
        more_than_the_limit,
        pages_of_nobody_are_given_back,
        pages_of_the_hypervisor_are_given_back,
        a_page_is_given_back_while_it_is_lent,
        a_page_is_put_over_another,
        a_block_is_put_over_pages,
        pages_of_others_are_mapped,
        maps_of_others_are_changed,
        devices_are_mapped,
        a_grant_frame_moves_about,
        everything_is_removed_twice,
        tables_until_there_are_no_more,
        a_block_is_broken_without_a_table,
        a_block_becomes_a_sieve,
        new_pages_hold_nothing,
        operations_of_other_kinds_of_guests,
        lists_that_lie_upon_each_other,
        nodes_and_flags_by_chance;
    lending:
        references_that_are_none,
        mappings_of_every_kind,
        entries_of_every_kind,
        entries_of_what_is_no_memory,
        grants_of_grants,
        handles_that_are_none,
        one_handle_many_times_in_a_batch,
        one_place_many_times_in_a_batch,
        mappings_over_everything,
        writes_through_a_read_only_mapping,
        chains_of_grants_and_parts_of_pages,
        versions_that_are_not_there,
        copies_beyond_the_ends,
        copies_upon_themselves,
        copies_of_others_memory,
        copies_by_the_hundred,
        entries_change_places,
        pages_change_hands,
        tables_of_every_size,
        caches_of_others_are_flushed,
        a_block_of_grants_comes_apart,
        handles_by_the_thousand,
        borrowed_pages_in_the_hypervisors_use,
        grants_by_chance;
    ports:
        every_operation_on_ports_that_are_none,
        ports_are_offered_for_others,
        ports_of_dom0_are_guessed,
        virqs_of_every_number,
        vcpus_that_are_none_get_events,
        ports_until_there_are_no_more,
        ports_by_the_ten_thousand,
        control_blocks_in_places_that_are_none,
        pages_of_words_that_are_none,
        event_words_by_chance,
        event_words_that_link_to_themselves,
        event_words_that_link_in_rings,
        event_words_that_link_beyond_the_table,
        event_words_that_are_busy_for_ever,
        event_words_that_are_all_ones,
        pages_of_words_are_given_away,
        one_page_for_everything,
        events_for_a_vcpu_without_a_control_block,
        bitmaps_that_are_all_ones,
        priorities_that_are_none,
        ports_that_lead_to_themselves,
        interfaces_are_changed_under_way;
    interrupts:
        every_register_is_read,
        every_register_is_filled_with_ones,
        every_register_is_filled_with_zeroes,
        every_register_is_filled_by_chance,
        sgis_to_everybody_of_every_kind,
        registers_in_the_wrong_size,
        registers_by_instructions_of_other_kinds,
        code_runs_in_devices,
        tables_in_devices,
        the_real_controller_is_looked_for,
        beyond_the_interface,
        the_interface_is_filled_by_chance,
        ends_of_what_never_began,
        timers_are_made_pending_by_hand,
        interrupts_beyond_the_last,
        all_sgis_at_all_priorities,
        the_distributor_goes_off_and_on,
        an_interrupt_is_undone_while_it_is_active,
        user_mode_touches_devices,
        firmware_is_asked_for_everything,
        vcpus_are_started_where_there_is_nothing,
        halves_of_registers_together;
    instructions:
        coprocessors_that_are_none,
        coprocessors_in_user_mode,
        every_system_register_is_read,
        registers_of_the_hypervisor_are_read_and_written,
        registers_of_the_core_are_written,
        modes_that_are_not_for_guests,
        returns_to_the_hypervisor,
        banked_registers_of_the_hypervisor,
        breakpoints_and_other_states,
        waits_in_user_mode,
        vector_registers_in_every_state,
        coprocessor_instructions_by_chance,
        instructions_by_chance_in_user_mode,
        caches_by_set_and_way,
        caches_by_address_of_nothing,
        lines_are_dropped_after_pages_change,
        translations_are_asked_for,
        every_bit_of_sctlr,
        timers_at_the_ends_of_time,
        timers_of_others_are_set,
        aborts_of_every_form;
    races:
        all_map_and_unmap_one_page,
        all_map_in_one_place,
        all_unmap_one_handle,
        an_entry_changes_its_flags_while_it_is_mapped,
        an_entry_changes_its_page_while_it_is_mapped,
        an_entry_changes_its_page_while_it_is_copied,
        an_entry_never_stands_still,
        a_page_is_given_away_while_it_is_mapped,
        all_populate_and_decrease,
        all_take_the_last_pages,
        a_buffer_leaves_the_map_while_it_is_used,
        a_buffer_becomes_a_grant_while_it_is_used,
        a_buffer_becomes_a_page_of_the_hypervisor,
        a_list_of_extents_is_written_meanwhile,
        a_multicall_is_written_meanwhile,
        the_grant_table_grows_while_it_is_used,
        a_grant_frame_is_put_in_two_places,
        shared_pages_are_put_upon_each_other,
        entries_are_swapped_while_they_are_mapped,
        a_copy_goes_where_a_page_leaves,
        caches_are_flushed_of_a_page_that_leaves,
        a_page_is_read_while_it_is_replaced,
        a_block_is_broken_while_it_is_read,
        tables_change_while_a_pointer_is_followed,
        a_buffer_is_unmapped_by_its_own_kernel,
        caches_by_set_and_way_while_pages_leave,
        user_mode_races_the_kernels_map,
        holes_are_made_under_each_other;
    rivals:
        fifo_begins_and_ends_at_once,
        ports_are_used_while_all_are_closed,
        both_ends_are_closed_at_once,
        ports_come_and_go_on_all_vcpus,
        a_port_moves_while_it_is_sent_to,
        fifo_priorities_change_under_way,
        event_words_are_written_while_they_are_linked,
        vcpu_info_is_registered_by_all,
        run_state_moves_while_its_page_leaves,
        two_start_a_third,
        a_vcpu_starts_while_it_gets_everything,
        an_interrupt_is_enabled_and_disabled_while_it_comes,
        sgis_from_all_to_all,
        priorities_and_pending_bits_change_under_way,
        timers_are_set_by_all_at_once,
        parameters_are_asked_for_by_all,
        watchdogs_are_set_by_all,
        a_sleeper_is_woken_by_what_is_closed;
    floods:
        events_to_dom0,
        events_to_oneself,
        events_from_all_to_all,
        unmasking,
        sgis,
        the_distributors_switch,
        enables_of_interrupts,
        ends_of_interrupts,
        calls_that_are_logged,
        undefined_instructions,
        data_aborts,
        prefetch_aborts,
        aborts_of_devices_that_are_logged,
        registers_that_trap,
        sets_and_ways,
        waits_that_end_at_once,
        timers_in_the_past,
        sleeps_of_an_instant,
        yields,
        yields_just_before_the_end_of_a_turn,
        sleeps_just_before_the_end_of_a_turn,
        calls_that_fail,
        control_calls,
        cache_flushes,
        mappings,
        pages_taken_and_given,
        blocks_taken_and_given,
        multicalls,
        calls_of_firmware,
        vcpus_on_and_off,
        resets_of_full_tables,
        lines_of_the_console,
        faults_of_user_mode,
        questions_about_memory;
};

/// By two domains at once.
const PAIRS: &[Test] = attacks! {
    pairs:
        each_maps_the_others_pages,
        each_maps_what_the_other_gives_away,
        each_maps_what_the_other_takes_back,
        each_copies_from_and_to_the_other,
        each_offers_the_other_ports,
        each_acts_in_the_others_name,
        both_use_all_ports,
        both_use_all_memory,
        both_use_handles_by_the_thousand,
        both_flood_dom0,
        both_keep_their_cpus;
};

#[unsafe(no_mangle)]
extern "C" fn guest_main() -> ! {
    ends::end();
    let is_pair = platform::get().arguments("pair").next().is_some();
    run("hostile", if is_pair { PAIRS } else { ATTACKS })
}
