"""An example of every command of a hospital, as --help shows it."""

EXAMPLES = {
    "init": (
        "esn-client init hospital --site north --epsilon-cap 8 --delta 1e-3 --dataset bids "
        "--derivatives derivatives"
    ),
    "kit": "esn-client kit hospital/site.toml north.kit.toml",
    "rotate": "esn-client rotate hospital/site.toml --yes",
    "simulate": "esn-client simulate bids --site north --seed 1 --connectomes derivatives",
    "prepare": "esn-client prepare bids derivatives participant --protocol protocol.toml --n-procs 2",
    "import": (
        "esn-client import derivatives sub-012_connectome.csv --nodes fs_default.txt "
        "--protocol protocol.toml --participant-label 012"
    ),
    "rate": (
        "esn-client rate derivatives fail --protocol protocol.toml --participant-label 012 --initials AB "
        "--note motion"
    ),
    "candidates": (
        "esn-client candidates bids derivatives --protocol draft.toml --note 'thirty controls of north' "
        "--out candidates.toml"
    ),
    "review": "esn-client review protocol.toml --settings hospital/site.toml",
    "approve": "esn-client approve hospital/site.toml protocol.toml",
    "withdraw": "esn-client withdraw hospital/site.toml 19e37cf3",
    "withdraw-child": "esn-client withdraw-child hospital/site.toml 012",
    "ledger rebuild": "esn-client ledger rebuild hospital/site.toml --people everybody.txt",
    "audit": "esn-client audit hospital/site.toml protocol.toml --out audit.html --json",
    "countersign": (
        "esn-client countersign hospital/site.toml study.proposal.esn --audit audit.json "
        "--out north.countersignature.json"
    ),
    "predict": (
        "esn-client predict study.esn bids --derivatives derivatives --participant-label 012 "
        "--out predictions"
    ),
    "personal-model": "esn-client personal-model hospital/site.toml protocol.toml --out personal",
    "check": "esn-client check hospital/site.toml",
    "status": "esn-client status hospital/site.toml --json",
    "join": "esn-client --log-format json join hospital/site.toml",
    "ledger show": "esn-client ledger show hospital/site.toml",
    "ledger verify": "esn-client ledger verify hospital/site.toml",
    "ledger export": "esn-client ledger export hospital/site.toml",
    "audit-log export": "esn-client audit-log export hospital/site.toml",
}
