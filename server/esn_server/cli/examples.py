"""An example of every command of a centre, as --help shows it."""

EXAMPLES = {
    "init": "esn-server init centre --name centre.example.org",
    "start": "esn-server --log-format json start centre --host 0.0.0.0 --port 9092",
    "enrol": "esn-server enrol centre north.enrolment.toml --public-address centre.example.org:9092",
    "revoke": "esn-server revoke centre north --yes",
    "accept-ledger": "esn-server accept-ledger centre north --entries 12 --head 19e37cf3e207a29b --yes",
    "renew": "esn-server renew centre --name centre.example.org",
    "protocol new": (
        "esn-server protocol new centre --study first --epsilon 8 --delta 1e-3 --no-simulated --votes "
        "--atlas bonn-40 --inputs ours/inputs.toml --split-salt 'agreed by all' --out first/votes.toml"
    ),
    "protocol validate": "esn-server protocol validate draft.toml",
    "protocol sign": "esn-server protocol sign centre draft.toml",
    "protocol price": "esn-server protocol price draft.toml --training-children 120 --held-out-children 60",
    "run": "esn-server run centre protocol.toml --out runs/first",
    "status": "esn-server status centre --watch",
    "audit verify": "esn-server audit verify centre north.jsonl south.jsonl west.jsonl",
    "report": "esn-server report runs/first/result.json --out report.html",
    "export": "esn-server export runs/first/result.json --out first-tables",
    "release": "esn-server release centre runs/first --propose --out first.proposal.esn",
    "pretrain": (
        "esn-server pretrain weights.safetensors --name compact-4 --seed 1 --worlds 60 --steps 2000 "
        "--atlas desikan-killiany-83"
    ),
    "demo": "esn-server demo --out runs/demo",
}
