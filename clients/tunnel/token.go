package tunnel

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

var errNotADeviceToken = errors.New("this is not a device token")

// DeviceID reads the device's id from its token. It does not verify the token:
// only the panel can say whether it is good.
func DeviceID(token string) (uuid.UUID, error) {
	claims, err := deviceClaims(token)
	return claims.ID, err
}

// DeviceKind reads the device's kind from its token, equally unverified.
func DeviceKind(token string) (types.DeviceKind, error) {
	claims, err := deviceClaims(token)
	return claims.Kind, err
}

type tokenClaims struct {
	ID   uuid.UUID        `json:"sub"`
	Kind types.DeviceKind `json:"kind"`
}

// deviceClaims decodes the payload of a JWT in compact form (RFC 7519
// section 3). Its errors do not repeat what was read.
func deviceClaims(token string) (tokenClaims, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return tokenClaims{}, errNotADeviceToken
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return tokenClaims{}, errNotADeviceToken
	}
	var claims tokenClaims
	if json.Unmarshal(payload, &claims) != nil || claims.ID == uuid.Nil || !claims.Kind.Valid() {
		return tokenClaims{}, errNotADeviceToken
	}
	return claims, nil
}
