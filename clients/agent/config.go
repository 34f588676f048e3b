package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/uuid"
)

// ErrNotEnrolled is returned by LoadConfig where there is no file.
var ErrNotEnrolled = errors.New("this machine is not enrolled")

// Config is what enrollment leaves on the machine.
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

// LoadConfig reads a config file. It refuses one that other users can read.
func LoadConfig(path string) (Config, error) {
	data, err := readPrivate(path)
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
	if err := writePrivate(path, append(data, '\n')); err != nil {
		return fmt.Errorf("write the config: %w", err)
	}
	return nil
}

// CheckConfigPath finds out whether a config could be saved there, for callers
// that do something of consequence before they save one.
func CheckConfigPath(path string) error {
	temp, err := createBeside(path)
	if err == nil {
		err = errors.Join(temp.Close(), os.Remove(temp.Name()))
	}
	if err != nil {
		return fmt.Errorf("write in the config's directory: %w", err)
	}
	return nil
}
