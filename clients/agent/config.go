package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/clients/agent/internal/store"
)

// ErrNotEnrolled is returned by LoadConfig where there is no file.
var ErrNotEnrolled = errors.New("this machine is not enrolled")

// Config is what enrollment saves on the machine.
type Config struct {
	PanelURL string    `json:"panelUrl"`
	DeviceID uuid.UUID `json:"deviceId"`
	Name     string    `json:"name"`
	Token    string    `json:"token"` // Secret.
	Allow    []string  `json:"allow"` // See ParseAllowList.
}

// DefaultConfigPath is eclitunnel/config.json in the user's config directory.
func DefaultConfigPath() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("find the user's config directory: %w", err)
	}
	return filepath.Join(dir, "eclitunnel", "config.json"), nil
}

// LoadConfig reads a config file. It refuses a file that other users can read.
func LoadConfig(path string) (Config, error) {
	data, err := store.Read(path)
	if errors.Is(err, fs.ErrNotExist) {
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

// Save writes the config, readable by this user only. A crash leaves either the
// old config or the new.
func (c Config) Save(path string) error {
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return fmt.Errorf("marshal the config: %w", err)
	}
	if err := store.Write(path, append(data, '\n')); err != nil {
		return fmt.Errorf("write the config: %w", err)
	}
	return nil
}

// CheckConfigPath returns an error unless a config can be saved at path, for callers
// that do something they cannot undo before they save one.
func CheckConfigPath(path string) error {
	if err := store.CheckWritable(path); err != nil {
		return fmt.Errorf("write in the config's directory: %w", err)
	}
	return nil
}
