"""The node's configuration: one TOML file, each key also as P2PD_TABLE_KEY and as `--set table.key=value`.

Later wins: built-in default, file, environment, command line. What is wrong is an error that names the file, the line,
the key, the value and what is allowed; nothing is passed over in silence. Opens no files but those that the
configuration itself names. Knows `p2pd.oci`, `p2pd.toml`, `p2pd.units` and `p2pd.upstream.config`.
"""

from p2pd.config.load import DEFAULT_PATH, env_name, load_config, load_node
from p2pd.config.model import (
    Address,
    AdminConfig,
    Config,
    ConfigError,
    DiscoveryConfig,
    FleetConfig,
    MirrorConfig,
    NodeConfig,
    PeersConfig,
    StoreConfig,
)

__all__ = [
    "DEFAULT_PATH",
    "Address",
    "AdminConfig",
    "Config",
    "ConfigError",
    "DiscoveryConfig",
    "FleetConfig",
    "MirrorConfig",
    "NodeConfig",
    "PeersConfig",
    "StoreConfig",
    "env_name",
    "load_config",
    "load_node",
]
