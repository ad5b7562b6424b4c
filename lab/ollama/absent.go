package main

// Endpoints that the real server has and the stand-in does not play. Each answers with the status that
// was seen of a server without internet (501: never asked), so that a gateway which lets one through
// is seen. What they say was not written down.

import "net/http"

func absentRoutes() routes {
	table := routes{}
	for asked, status := range map[string]int{
		"POST /api/push":                              http.StatusInternalServerError,
		"POST /api/me":                                http.StatusOK,
		"POST /api/signout":                           http.StatusNotImplemented,
		"DELETE /api/user/keys/*":                     http.StatusNotImplemented,
		"GET /api/status":                             http.StatusOK,
		"POST /api/experimental/web_search":           http.StatusServiceUnavailable,
		"POST /api/experimental/web_fetch":            http.StatusServiceUnavailable,
		"GET /api/experimental/model-recommendations": http.StatusForbidden,
		"POST /v1/audio/transcriptions":               http.StatusBadRequest,
	} {
		status := status
		table[asked] = func(w http.ResponseWriter, r *http.Request) {
			if status == http.StatusOK {
				writeJSON(w, status, map[string]any{})
				return
			}
			fail(w, r, refuse(status, "%s is not in the lab's stand-in", r.URL.Path))
		}
	}
	return table
}
