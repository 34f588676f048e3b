package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

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

// LoadConfig reads a config file. It refuses one that other users can read,
// since a token that leaked by that is in use already (not on Windows, where a
// profile's files are private by their access lists).
func LoadConfig(path string) (Config, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Config{}, ErrNotEnrolled
	}
	if err != nil {
		return Config{}, fmt.Errorf("open the config: %w", err)
	}
	defer func() { _ = f.Close() }() // It was only read.
	info, err := f.Stat()
	if err != nil {
		return Config{}, fmt.Errorf("stat the config: %w", err)
	}
	if mode := info.Mode().Perm(); runtime.GOOS != "windows" && mode&0o077 != 0 {
		return Config{}, fmt.Errorf("others can read the device's token in %s (mode %#o); run: chmod 600 %s", path, mode, path)
	}
	var c Config
	if err := json.NewDecoder(f).Decode(&c); err != nil {
		return Config{}, fmt.Errorf("the config %s is damaged: %w", path, err)
	}
	return c, nil
}

// Save writes the config, readable by this user only. It replaces the file in
// one step, so that a crash leaves either the old config or the new.
func (c Config) Save(path string) error {
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return fmt.Errorf("marshal the config: %w", err)
	}
	temp, err := createBeside(path)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(temp.Name()) }() // Already renamed, where all went well.
	_, err = temp.Write(append(data, '\n'))
	if err == nil {
		err = temp.Sync()
	}
	if closeErr := temp.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("write the config: %w", err)
	}
	return nil
}

// CheckConfigPath finds out whether a config could be saved there, for callers
// that do something of consequence before they save one.
func CheckConfigPath(path string) error {
	temp, err := createBeside(path)
	if err != nil {
		return err
	}
	return errors.Join(temp.Close(), os.Remove(temp.Name()))
}

// createBeside makes a private temporary file in the directory of path, and
// that directory where it is missing.
func createBeside(path string) (*os.File, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the config's directory: %w", err)
	}
	temp, err := os.CreateTemp(dir, ".config-*")
	if err != nil {
		return nil, fmt.Errorf("write in the config's directory: %w", err)
	}
	return temp, nil
}

// syncDir makes a rename durable. Windows does so by itself and refuses to sync
// a directory.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
