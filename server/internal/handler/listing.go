package handler

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
)

// given appends the name and the value of a query parameter for cut, unless it is absent.
func given[T any](parameters []string, name string, value *T) []string {
	if value == nil {
		return parameters
	}
	return append(parameters, name, fmt.Sprint(*value))
}

// textOf returns the text of a query parameter, or "" without it.
func textOf[T ~string](value *T) string {
	if value == nil {
		return ""
	}
	return string(*value)
}

// toSort converts the parameter `sort`: a hyphen in front reverses the order.
func toSort[T ~string](sort T) db.Sort {
	by, descending := strings.CutPrefix(string(sort), "-")
	return db.Sort{By: by, Descending: descending}
}

// sortCursor encodes a position in a list with that value of the parameter `sort`. It has the sort key, so that it stays
// valid when the row is deleted. The key may contain a colon.
func sortCursor[T ~string](sort T, position db.Position) string {
	return base64.RawURLEncoding.EncodeToString([]byte(string(sort) + ":" + position.ID + ":" + position.Key))
}

// sortPosition decodes a cursor of sortCursor for a list in the same order and with such ids, or returns nil without one.
func sortPosition[T ~string](sort T, isID func(string) bool, cursor *string) (*db.Position, error) {
	text, err := textPosition(cursor)
	if text == nil || err != nil {
		return nil, err
	}
	of, rest, _ := strings.Cut(*text, ":")
	id, key, found := strings.Cut(rest, ":")
	if !found || of != string(sort) || !isID(id) || !isSortKey(toSort(sort).By, key) {
		return nil, errNoPosition
	}
	return &db.Position{Key: key, ID: id}, nil
}

// isNumber and isUUID report whether text is an id of rows that have such ids.
func isNumber(text string) bool {
	id, err := strconv.ParseInt(text, 10, 64)
	return err == nil && id > 0
}

func isUUID(text string) bool {
	_, err := uuid.Parse(text)
	return err == nil
}

// isSortKey reports whether text is a value of a sort key.
func isSortKey(by, text string) bool {
	switch by {
	case "name", "email":
		return true
	case "port":
		_, err := strconv.ParseUint(text, 10, 16)
		return err == nil
	default:
		if text == seenNow || text == seenNever {
			return by == "lastSeenAt"
		}
		at, err := time.Parse(time.RFC3339Nano, text)
		return err == nil && at.UnixMicro() <= lastMicrosecond && at.Year() > 0
	}
}

// The sort keys of devices that are online, and that have never connected.
const (
	seenNow   = "infinity"
	seenNever = "-infinity"
)

// timeKey returns the sort key of a time.
func timeKey(at time.Time) string { return at.UTC().Format(time.RFC3339Nano) }
