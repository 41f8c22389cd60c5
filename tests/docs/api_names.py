"""What docs/api.md lists: the functions and classes that a user calls, by task. Imports nothing."""

# (task, a sentence about it, {module: names})
TASKS: tuple[tuple[str, str, dict[str, str]], ...] = (
    (
        "Corpora",
        "Reading speech in the Common Voice layout, decoding and preparing it, feeding it.",
        {
            "w2v_jax.data.common_voice": "load_corpus locate read_table decode_rows column lengths take "
            "Corpus Clip Utterance Columnar",
            "w2v_jax.data.tables": "parse_table ClipRow SkippedClip Table",
            "w2v_jax.data.audio": "decode decode_bytes to_float",
            "w2v_jax.data.prepared.preparation": "prepare Progress",
            "w2v_jax.data.prepared.corpus": "load_prepared PreparedCorpus PreparedClips PreparedClip",
            "w2v_jax.data.synthetic": "write_corpus SyntheticConfig",
            "w2v_jax.data.batches.crops": "CropBatches evaluation_batches make_batch",
            "w2v_jax.data.batches.labelled": "LabelledBatches",
            "w2v_jax.data.batches.augmentation": "augment Augmentation",
            "w2v_jax.data.batches.pipeline": "stream BucketBatches",
        },
    ),
    (
        "The model and its objective",
        "wav2vec 2.0 as pure functions; presets are in `w2v_jax.config.PRESETS`.",
        {
            "w2v_jax.config": "ModelConfig",
            "w2v_jax.model.wav2vec2": "Wav2Vec2 Encoder Encoded Predictions DropoutKeys normalise_waveform",
            "w2v_jax.model.binding": "bind parameters_of",
            "w2v_jax.objective.pretraining": "pretraining_objective bind_model Objective summarise",
            "w2v_jax.batch": "Batch LabelledBatch Total",
            "w2v_jax.objective.pretraining_loss": "Draws draw loss_and_sums",
            "w2v_jax.optim": "make_optimizer make_learning_rate OptimizerConfig",
            "w2v_jax.memory_methods": "configured names_of is_exact optimizer_changes",
            "w2v_jax.model.frame_counts": "frame_lengths valid_frames",
        },
    ),
    (
        "Speech recognition",
        "CTC on an encoder, transcripts and error rates.",
        {
            "w2v_jax.recognition.ctc": "recognizer Recognizer RecognizerConfig collapse decode_batch",
            "w2v_jax.recognition.heads": "HeadConfig",
            "w2v_jax.recognition.training": "make_optimizer initial_state make_update "
            "make_statistics_update "
            "TrainingState NewBob tri_stage",
            "w2v_jax.text.rules": "normalise TextRules",
            "w2v_jax.text.tokenizers": "Tokenizer train_characters train_pieces",
            "w2v_jax.text.storage": "save_tokenizer load_tokenizer",
            "w2v_jax.recognition.error_rates": "word_errors character_errors alignment Errors",
            "w2v_jax.recognition.windows": "stitched_scores",
            "w2v_jax.recognition.log_mel": "log_mel",
        },
    ),
    (
        "Checkpoints and other projects' models",
        "",
        {
            "w2v_jax.checkpoint": "Checkpoints Restored OtherArraysError",
            "w2v_jax.interop.huggingface_folder": "read_model read_encoder read_config write_model "
            "HuggingFaceModel",
            "w2v_jax.interop.huggingface_names": "to_state_dict from_state_dict",
            "w2v_jax.interop.fairseq": "read",
        },
    ),
    (
        "Federated rounds",
        "Over any objective: see [bring your own model](own-model.md).",
        {
            "fed.protocols": "Objective ClientSource ClientPlan Resident FederationError",
            "fed.client": "LocalTraining",
            "fed.aggregation": "fedavg loss_weighted uniform",
            "fed.server": "init ServerState",
            "fed.sampling": "everyone uniform poisson",
            "fed.cohort": "choose_layout Layout RoundSettings",
            "fed.simulation": "run Simulation RoundResult prepare build_engine",
            "fed.round": "run_round ClientModels",
            "fed.partition": "balanced single iid dirichlet dirichlet_equal",
            "fed.attendance": "attend Faults Attendance",
            "fed.privacy.noise": "Privacy",
            "fed.privacy.accounting": "epsilon noise_multiplier",
            "fed.divergence": "divergence Divergence",
            "fed.centralised": "init run CentralState StretchResult",
            "fed.chunks": "measure fastest Trial",
            "fed.keys": "initial_key evaluation_key round_key step_key client_number Stream stream_generator",
        },
    ),
    (
        "With fedjax",
        "",
        {
            "fed.fedjax_bridge": "FedjaxSource sampler federated_algorithm lazy_federated_data",
            "fed.fedjax_vmap": "vmap_backend",
            "fed.fedjax_compat": "restore_removed_names",
        },
    ),
    (
        "What a function costs",
        "Of any function that jax can trace: see [price your own function](price-your-function.md).",
        {
            "profiling.flops": "count Report Cost",
            "profiling.module_counter": "count_modules LayerCost",
            "profiling.residuals": "residuals Residuals",
            "profiling.traffic": "traffic Traffic TrafficReport",
            "profiling.xla": "operations memory_plan MemoryPlan",
            "profiling.timeline": "compile_with_timeline Timeline LiveTemporaries",
            "profiling.kernels": "device_time DeviceTime Kernel",
            "profiling.process_memory": "resident_bytes peak_resident_bytes available_bytes settle give_back",
        },
    ),
    (
        "Devices that are not here",
        "The catalogue is `profiling.devices.DEVICES`.",
        {
            "profiling.device": "Device",
            "profiling.devices": "named_like",
            "profiling.this_machine": "this_machine",
            "profiling.step_time": "fit uncalibrated_seconds StepTimeModel Efficiencies Work Cell "
            "leave_one_device_out",
            "profiling.targets": "lower_for compile_lowered compiler_options missing TargetError",
            "profiling.feasibility": "usable_bytes verdict longest break_even_rounds audio_bytes Link",
            "profiling.export": "export_program write_artifact",
        },
    ),
    ("Errors", "", {"w2v_jax.errors": "UserError CorpusError ClipError"}),
)
