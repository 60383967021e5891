"""The faults that busd promises to survive, and the tests that show it: `make faults` runs and prints them.

One entry for each fault: what is promised, and the tests (file::function) that try to break it.  A test checks that all
of them exist; a fault without a passing test fails the run.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """`tests`: node ids without parameters; `target`: the make target that tries it, if not `faults`."""

    number: int
    name: str
    promise: str
    tests: tuple[str, ...]
    target: str = "faults"


FAULTS = (
    Fault(
        1,
        "power loss at any byte",
        "all that was answered is there, nothing is made up, it starts without hands",
        (
            "tests/faults/test_power_cuts.py::test_a_power_cut_before_every_call",
            "tests/faults/test_power_cuts.py::test_a_power_cut_after_a_kill",
            "tests/faults/test_power_cuts.py::test_a_kill_within_a_stop_and_then_a_power_cut",
            "tests/recovery/test_crashes.py::test_a_power_cut_behind_every_call",
            "tests/recovery/test_crashes.py::test_what_was_cut_off_in_a_second_crash_during_recovery",
            "tests/recovery/test_cut_and_flip.py::test_cut_at_every_byte",
        ),
    ),
    Fault(
        2,
        "power loss over acks, rolls, retention, rewriting, punching, RESET, index, meta",
        "the same; acknowledged stays so, what retention took is counted, no offset twice",
        (
            "tests/faults/test_power_cuts.py::test_a_power_cut_before_every_call",
            "tests/recovery/test_sweep_crashes.py::test_a_power_cut_behind_every_call",
            "tests/recovery/test_sweep_crashes.py::test_verify_finds_no_damage_after_a_power_cut",
            "tests/recovery/test_group_log_crashes.py::test_a_power_cut_behind_every_call_takes_nothing_that_was_answered",
            "tests/recovery/test_group_log_crashes.py::test_a_power_cut_behind_every_call_of_a_snapshot",
            "tests/unit/test_meta.py::test_what_is_saved_is_loaded_also_after_a_power_cut",
            "tests/faults/test_failing_calls.py::test_an_offset_is_not_given_twice_when_the_floor_could_not_be_raised",
        ),
    ),
    Fault(
        3,
        "kill -9 under load",
        "what was answered is there for readers and for every group, in order",
        (
            "tests/process/test_kill.py::test_kill_9_takes_nothing_that_was_answered",
            "tests/process/test_check.py::test_kill_9_under_load",
            "tests/process/test_group_chaos.py::test_nothing_is_lost_whoever_is_killed",
            "tests/process/test_group_chaos.py::test_what_was_answered_to_be_acknowledged_never_comes_again",
        ),
    ),
    Fault(
        4,
        "SIGTERM under load",
        "no answered message is lost, it ends in time, systemd is told",
        (
            "tests/process/test_shutdown.py::test_under_load_no_answer_and_no_message_is_lost",
            "tests/process/test_shutdown.py::test_a_peer_that_takes_nothing_is_waited_for_half_of_the_time",
            "tests/process/test_shutdown.py::test_systemd_is_told",
            "tests/faults/test_failing_calls.py::test_full_at_the_stop",
        ),
    ),
    Fault(
        5,
        "disk full, also at the start",
        "-FULL; reading and acknowledging go on; what is freed is published to without a restart",
        (
            "tests/faults/test_disk_trouble.py::test_a_small_disk_fills_up_and_heals",
            "tests/faults/test_disk_trouble.py::test_full_at_the_start",
            "tests/faults/test_failing_calls.py::test_full_at_the_start",
            "tests/faults/test_failing_calls.py::test_a_disk_of_any_size_fills_up_and_heals",
            "tests/faults/test_failing_calls.py::test_reset_makes_room_on_a_disk_that_is_full_to_the_last_byte",
            "tests/recovery/test_faults.py::test_a_full_disk_at_the_start_serves_what_is_there",
        ),
    ),
    Fault(
        6,
        "no room at every place that writes; quota; RLIMIT_FSIZE",
        "refused, nothing has changed, tried again",
        (
            "tests/faults/test_failing_calls.py::test_each_call_fails_once",
            "tests/recovery/test_faults.py::test_a_commit_that_fails_at_any_call",
            "tests/recovery/test_faults.py::test_trimming_that_fails_at_any_call",
            "tests/recovery/test_faults.py::test_opening_that_fails_at_any_call",
            "tests/recovery/test_group_log_crashes.py::test_every_call_that_can_fail_does",
            "tests/unit/test_disk.py::test_errors_by_kind_with_their_place",
            "tests/faults/test_disk_trouble.py::test_a_limit_of_the_size_of_files",
        ),
    ),
    Fault(
        7,
        "fsync fails once",
        "no answer that says kept, no second fsync called good, a restart finds a prefix",
        (
            "tests/faults/test_slow_and_failing_sync.py::test_a_sync_that_fails_once",
            "tests/faults/test_slow_and_failing_sync.py::test_a_sync_of_the_interval_that_fails",
            "tests/recovery/test_crashes.py::test_a_sync_that_failed_is_the_last",
            "tests/unit/test_log.py::test_a_failed_sync_latches_the_store_and_only_that",
            "tests/faults/test_failing_calls.py::test_each_call_fails_once",
        ),
    ),
    Fault(
        8,
        "fsync takes two seconds",
        "the loop goes round, others are answered, those who wait share one sync",
        ("tests/faults/test_slow_and_failing_sync.py::test_a_sync_that_takes_two_seconds",),
    ),
    Fault(
        9,
        "a reader that stopped",
        "memory is bounded, the others are not held up, the count of its GAP is exact",
        (
            "tests/process/test_promises.py::test_a_stopped_reader_among_fifty",
            "tests/process/test_sockets.py::test_a_reader_that_takes_its_time_gets_everything_when_the_server_stops",
        ),
    ),
    Fault(
        10,
        "a writer that dribbles",
        "a deadline, and no memory beyond the limit",
        (
            "tests/process/test_sockets.py::test_a_command_that_is_never_finished",
            "tests/process/test_hostile.py::test_a_command_dribbled_a_byte_at_a_time",
            "tests/process/test_hostile.py::test_many_large_commands_that_never_end_cost_no_more_than_the_limit",
        ),
    ),
    Fault(
        11,
        "half-open TCP",
        "found in the time stated; what it had in hand goes to others",
        ("tests/process/test_hostile.py::test_a_member_whose_network_is_gone_is_found_and_its_messages_go_to_others",),
    ),
    Fault(
        12,
        "half-close, close in the middle of an answer",
        "what is owed is sent, nothing leaks",
        (
            "tests/process/test_tools.py::test_a_subscription_outlives_the_half_close",
            "tests/process/test_tools.py::test_a_half_closed_reader_that_dies_is_found",
            "tests/unit/test_session.py::test_half_close_is_no_goodbye",
            "tests/unit/test_session.py::test_a_lost_connection_costs_nothing_more",
        ),
    ),
    Fault(
        13,
        "more connections than descriptors",
        "the rest is told or waits, nothing spins, who is connected and the log go on",
        (
            "tests/faults/test_disk_trouble.py::test_out_of_descriptors",
            "tests/faults/test_disk_trouble.py::test_a_store_for_each_topic_leaves_descriptors",
            "tests/process/test_hostile.py::test_with_few_descriptors_accepting_stops_and_the_rest_goes_on",
            "tests/process/test_sockets.py::test_connections_beyond_the_limit_are_told_and_the_others_go_on",
        ),
    ),
    Fault(
        14,
        "a storm of connects",
        "descriptors, tasks and memory are back where they were",
        ("tests/process/test_hostile.py::test_a_storm_of_connects_leaves_nothing_behind",),
    ),
    Fault(
        15,
        "malformed input",
        "no traceback, no hang, the same answer however it is cut",
        (
            "tests/fuzz/test_codecs.py::test_inline",
            "tests/fuzz/test_codecs.py::test_resp",
            "tests/fuzz/test_codecs.py::test_any_bytes",
            "tests/fuzz/test_scanner.py::test_anything",
            "tests/process/test_hostile.py::test_a_fuzzer_on_sockets_finds_no_traceback_and_no_hang",
        ),
    ),
    Fault(
        16,
        "giant lines and counts, NUL, CR, bad UTF-8",
        "each limit has its error, and the connection goes on where that can be",
        (
            "tests/process/test_hostile.py::test_each_limit_has_its_error_and_the_connection_goes_on",
            "tests/process/test_hostile.py::test_giant_and_crooked_counts",
        ),
    ),
    Fault(
        17,
        "100,000 patterns",
        "refused or bounded; publishing stays quick",
        ("tests/process/test_hostile.py::test_a_hundred_thousand_patterns_cost_publishers_little",),
    ),
    Fault(
        18,
        "clocks that jump",
        "stored time never falls, nothing is deleted for it, timers do not notice",
        (
            "tests/faults/test_clock_jumps.py::test_time_never_falls_nor_stands_still_nor_leaps",
            "tests/faults/test_clock_jumps.py::test_retention_by_age_deletes_nothing_it_should_not",
            "tests/faults/test_clock_jumps.py::test_a_clock_that_is_wrong_at_the_start",
            "tests/faults/test_clock_jumps.py::test_timers_go_on",
            "tests/unit/test_log.py::test_time_does_not_fall_over_a_restart_with_a_clock_behind",
            "tests/unit/test_dedup_broker.py::test_a_wall_clock_that_jumps_changes_nothing",
        ),
    ),
    Fault(
        19,
        "corruption",
        "found, named, and a GAP for exactly that; the rest is served; repair keeps a copy",
        (
            "tests/recovery/test_cut_and_flip.py::test_flip_every_bit",
            "tests/recovery/test_damage.py::test_a_zeroed_page_in_a_sealed_segment_is_one_hole",
            "tests/recovery/test_damage.py::test_a_doubled_block_is_passed_over",
            "tests/recovery/test_damage.py::test_swapped_segments_are_not_served_and_named",
            "tests/recovery/test_damage.py::test_a_missing_middle_segment_is_a_hole_with_exact_counts",
            "tests/recovery/test_damage.py::test_an_index_is_only_a_hint",
            "tests/recovery/test_damage.py::test_a_sector_that_cannot_be_read_is_a_hole",
            "tests/recovery/test_group_log_crashes.py::test_every_flipped_byte_is_told_and_settles_nothing",
            "tests/unit/test_meta.py::test_every_flipped_bit_is_told",
            "tests/recovery/test_repair.py::test_every_byte",
            "tests/recovery/test_repair.py::test_large_damage",
            "tests/recovery/test_repair.py::test_a_repair_that_fails_is_done_again",
            "tests/unit/test_inspect.py::test_the_damaged_spot_is_named",
        ),
    ),
    Fault(
        20,
        "newer format, empty, foreign and unreadable files, read-only disk",
        "refused with the file's name, and not touched; strangers are left alone",
        (
            "tests/faults/test_versions.py::test_what_is_not_ours_to_read",
            "tests/faults/test_versions.py::test_strangers_among_the_files",
            "tests/faults/test_disk_trouble.py::test_a_read_only_disk",
            "tests/faults/test_disk_trouble.py::test_a_file_that_may_not_be_read",
        ),
    ),
    Fault(
        21,
        "two servers on one directory",
        "the second names the first and ends; after kill -9 the lock is free",
        (
            "tests/faults/test_disk_trouble.py::test_two_servers_at_once_and_the_lock_after_a_kill",
            "tests/process/test_tools.py::test_the_data_directory_has_one_server",
        ),
    ),
    Fault(
        22,
        "stale Unix sockets",
        "a dead one is replaced, a living one refused, a file left alone, a long path named",
        (
            "tests/process/test_sockets.py::test_a_unix_path_living_dead_or_not_a_socket",
            "tests/process/test_tools.py::test_a_stale_unix_socket_is_replaced",
            "tests/process/test_tools.py::test_a_unix_socket_has_one_server",
            "tests/process/test_tools.py::test_a_file_where_the_socket_should_be_is_left_alone",
        ),
    ),
    Fault(
        23,
        "acknowledgements that are late, doubled or foreign",
        "-STALE, and nothing is settled by it",
        (
            "tests/unit/test_desk.py::test_late_redelivery_is_not_settled_by_what_was_sent_before_it",
            "tests/unit/test_flight.py::test_it_does_what_a_list_of_messages_would_do",
            "tests/unit/test_group.py::test_nothing_is_lost_doubled_or_settled_unasked",
            "tests/process/test_client_workers.py::test_too_late_is_told",
        ),
    ),
    Fault(
        24,
        "RESET and retention race a replay",
        "every offset is delivered or named; nothing from before a RESET, nobody stuck",
        (
            "tests/faults/test_races.py::test_replays_beside_retention_and_reset",
            "tests/unit/test_store.py::test_readers_in_threads_beside_a_writer",
            "tests/unit/test_store.py::test_a_reader_that_was_trimmed_away_goes_on_behind_its_hole",
            "tests/unit/test_store_sweep.py::test_readers_within_a_stretch_while_it_is_punched",
        ),
    ),
    Fault(
        25,
        "a worker dies with messages in hand",
        "they come back once, in order, a try more; dead letters are kept once",
        (
            "tests/unit/test_desk.py::test_a_lost_member_gives_back_at_once_in_order_as_second_delivery",
            "tests/process/test_group_chaos.py::test_dead_letters_are_kept_once_whenever_the_broker_is_killed",
            "tests/process/test_group_chaos.py::test_nothing_is_lost_whoever_is_killed",
        ),
    ),
    Fault(
        26,
        "a ceiling of memory",
        "it refuses or trims, and does not die",
        (
            "tests/faults/test_disk_trouble.py::test_a_ceiling_of_memory",
            "tests/process/test_soak.py::test_a_soak_at_twice_the_pace_of_the_readers",
        ),
    ),
    Fault(
        27,
        "upgrade and downgrade",
        "logs of every release are read; what is newer is refused and not touched",
        (
            "tests/faults/test_versions.py::test_the_log_of_a_released_version",
            "tests/faults/test_versions.py::test_what_is_not_ours_to_read",
        ),
    ),
    Fault(
        28,
        "a device that drops writes or gives errors",
        "what was answered is there once the device is well (ext4, XFS, btrfs)",
        ("tests/faults/test_device.py::test_a_device_that_stops_writing",),
        "faults-root",
    ),
)
