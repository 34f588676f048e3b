package update

import (
	"encoding/json"

	"github.com/eclitunnel/eclitunnel/internal/files"
)

// Trial records, beside a program, that a version of it has yet to show that it works, or
// that it did not. The zero value is of no version.
type Trial struct {
	Version string `json:"version"`
	// Starts is how often it has been started before it worked.
	Starts int `json:"starts"`
	// Failed means that the program before has been put back.
	Failed bool `json:"failed"`
}

func trialFile(path string) string { return path + ".trial" }

// ReadTrial returns the record of the program at path. Where there is none, or none that can
// be read, it is the zero value.
func ReadTrial(path string) Trial {
	var t Trial
	data, err := files.ReadData(trialFile(path))
	if err != nil || json.Unmarshal(data, &t) != nil {
		return Trial{}
	}
	return t
}

// Save replaces the record of the program at path.
func (t Trial) Save(path string) error {
	data, err := json.Marshal(t)
	if err != nil {
		return err
	}
	return files.Write(trialFile(path), data)
}

// EndTrial removes the record of the program at path. That there is none is no error.
func EndTrial(path string) error { return files.Remove(trialFile(path)) }
