package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/internal/files"
)

// ErrNotEnrolled is returned by LoadConfig where there is no file, or an empty one, as
// is made to be mounted into a container.
var ErrNotEnrolled = errors.New("this machine is not enrolled")

// Config is what enrollment saves on the machine.
type Config struct {
	PanelURL string    `json:"panelUrl"`
	DeviceID uuid.UUID `json:"deviceId"`
	Name     string    `json:"name"`
	Token    string    `json:"token"` // Secret.
	// Insecure means that a person has accepted a PanelURL without encryption; see
	// tunnel.Options.
	Insecure bool `json:"insecure,omitempty"`
	// Allow and AllowPorts are the arguments of ParseAllowList.
	Allow      []string `json:"allow"`
	AllowPorts []string `json:"allowPorts,omitempty"`
	// Owner is the user who enrolled the device for an agent that runs as another user: a
	// uid, on Windows a SID. The agent's socket is theirs; see package local. "": nobody.
	Owner string `json:"owner,omitempty"`
}

// DefaultConfigPath is eclitunnel/config.json in the user's config directory.
func DefaultConfigPath() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("find the user's config directory: %w", err)
	}
	return filepath.Join(dir, "eclitunnel", "config.json"), nil
}

// LoadConfig reads a config file. It refuses a file that other users can read if they can
// be kept out.
func LoadConfig(path string) (Config, error) {
	data, err := files.ReadSecret(path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(bytes.TrimSpace(data)) == 0 {
		return Config{}, ErrNotEnrolled
	}
	if err != nil {
		return Config{}, fmt.Errorf("read the config: %w", err)
	}
	var c Config
	if err := json.Unmarshal(data, &c); err != nil {
		return Config{}, fmt.Errorf("the config %s is damaged: %w", path, err)
	}
	return c, nil
}

// Save writes the config, readable by this user only. A crash leaves either the old
// config or the new, and a symbolic link stays one. A config that cannot be replaced,
// such as a single file that is mounted into a container, is overwritten.
func (c Config) Save(path string) error {
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return fmt.Errorf("marshal the config: %w", err)
	}
	if err := files.Write(path, append(data, '\n')); err != nil {
		return fmt.Errorf("write the config: %w", err)
	}
	return nil
}

// maxConfig is more than a config takes with a token and a usual allow-list, in bytes.
const maxConfig = 4 << 10

// CheckConfigPath returns an error unless a config can be saved at path, for callers
// that do something they cannot undo before they save one. It writes as much as Save
// does. A config that is there keeps its content.
func CheckConfigPath(path string) error {
	if err := files.Prove(path, maxConfig); err != nil {
		return fmt.Errorf("write the config: %w", err)
	}
	return nil
}
