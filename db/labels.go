package db

import (
	"database/sql/driver"
	"encoding/json"
	"strconv"
)

// Labels are the labels of an allocation, as a JSON object of strings. "" means none. Values with the same labels that
// were read are equal.
type Labels string

// Value implements [driver.Valuer].
func (l Labels) Value() (driver.Value, error) { return Rules(l).Value() }

// Scan implements [database/sql.Scanner].
func (l *Labels) Scan(value any) error { return (*Rules)(l).Scan(value) }

// LabelFilter selects allocations that have a label with this key, and if Value is not nil with this value.
type LabelFilter struct {
	Key   string
	Value *string
}

// whereLabels adds the conditions of filters on allocations a, which must match all of them. The first one is that of
// the index, so that it serves the others.
func (s *selection) whereLabels(filters []LabelFilter) error {
	if len(filters) == 0 {
		return nil
	}
	s.where(`a.retires IS NULL AND a.labels <> '{}'`)
	for _, filter := range filters {
		if filter.Value == nil {
			// The operator ? would be taken for a value's place.
			s.args = append(s.args, filter.Key)
			s.conditions = append(s.conditions, `a.labels ? $`+strconv.Itoa(len(s.args))+`::text`)
			continue
		}
		text, err := json.Marshal(map[string]string{filter.Key: *filter.Value})
		if err != nil {
			return err
		}
		s.where(`a.labels @> ?::jsonb`, string(text))
	}
	return nil
}
