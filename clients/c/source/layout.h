/* What this rank owns of each field, and what of it the campaign wants; called by the link.
 *
 * The global field is what the solver has; the sent field is what is left of it after the
 * campaign's crop, stride and choice of components. A share maps one to the other for one rank.
 */

#define MAX_AXES 16

typedef enum field_role { ROLE_UNKNOWN, ROLE_STEP, ROLE_INPUT } field_role;

/* One field as the campaign declares it, or as it was learned. kept: for each axis the global
 * indices that are sent. */
typedef struct spec {
    char *name;
    field_role role;
    int dtype; /* PENSTOCK_F32 or PENSTOCK_F64 */
    int64_t every;
    int n_axes;
    int64_t shape[MAX_AXES];
    int64_t *kept[MAX_AXES];
    int64_t n_kept[MAX_AXES];
    int reduced; /* less than the whole field is sent */
} spec;

/* One rank's share of one field. take: indices into the owned values (NULL: all of them); plan:
 * the payload of the PLAN message. */
typedef struct share {
    int known;
    size_t n_owned, n_sent, n_plan;
    int64_t *take, *plan;
} share;

static void spec_free(spec *s) {
    int axis;
    for (axis = 0; axis < s->n_axes; axis++) free(s->kept[axis]);
    free(s->name);
    memset(s, 0, sizeof *s);
}

static void share_free(share *s) {
    free(s->take);
    free(s->plan);
    memset(s, 0, sizeof *s);
}

static size_t values_of(const int64_t *lengths, int n_axes) {
    size_t n = 1;
    int axis;
    for (axis = 0; axis < n_axes; axis++) n *= (size_t)lengths[axis];
    return n;
}

/* A shape as people write it: (64, 64). */
static const char *shape_text(const int64_t *shape, int n_axes, char *out, size_t n) {
    size_t used = (size_t)snprintf(out, n, "(");
    int axis;
    for (axis = 0; axis < n_axes && used < n; axis++)
        used += (size_t)snprintf(out + used, n - used, "%s%lld", axis ? ", " : "",
                                 (long long)shape[axis]);
    if (used < n) snprintf(out + used, n - used, n_axes == 1 ? ",)" : ")");
    return out;
}

/* The indices first, first + stride, ... below stop, or those of keep_components. */
static int64_t *kept_indices(const json *range, const json *stride, const json *chosen,
                             int64_t size, int64_t *n) {
    int64_t first = 0, stop = size, step = 1, i, *kept;
    if (range && json_length(range) == 2) {
        first = json_integer(range->child, 0);
        stop = json_integer(range->child->next, size);
    }
    if (stride) step = json_integer(stride, 1);
    if (stop > size) stop = size;
    if (first < 0 || step < 1) return NULL;
    *n = chosen ? (int64_t)json_length(chosen) : first < stop ? (stop - first + step - 1) / step : 0;
    kept = malloc((size_t)(*n + 1) * sizeof *kept);
    if (!kept) return NULL;
    for (i = 0; i < *n; i++) kept[i] = first + i * step;
    if (chosen) {
        const json *c = chosen->child;
        for (i = 0; i < *n; i++, c = c->next)
            if ((kept[i] = json_integer(c, -1)) < 0 || kept[i] >= size) {
                free(kept);
                return NULL;
            }
    }
    return kept;
}

static const json *element(const json *array, int i) {
    const json *found = array && array->kind == JSON_ARRAY ? array->child : NULL;
    while (found && i--) found = found->next;
    return found;
}

static penstock_code spec_axes(spec *s, const json *body, problem *why) {
    const json *chosen = json_get(body, "keep_components");
    int axis;
    if (!json_length(chosen)) chosen = NULL;
    for (axis = 0; axis < s->n_axes; axis++) {
        const json *stride = element(json_get(body, "stride"), axis);
        s->kept[axis] = kept_indices(element(json_get(body, "crop"), axis), stride,
                                     axis == s->n_axes - 1 ? chosen : NULL, s->shape[axis],
                                     &s->n_kept[axis]);
        if (!s->kept[axis])
            return failed(why, PENSTOCK_LAYOUT_ERROR,
                          "The campaign's crop, stride or keep_components of field '%s' do not fit "
                          "its shape on axis %d.", s->name, axis);
        if (stride && json_integer(stride, 1) != 1) s->reduced = 1;
    }
    if (chosen || json_length(json_get(body, "crop"))) s->reduced = 1;
    return PENSTOCK_OK;
}

/* Reads one field of the welcome; keys that this client does not know are ignored. */
static penstock_code spec_read(spec *s, const char *name, const json *body, problem *why) {
    const json *shape = json_get(body, "shape");
    const char *dtype = json_text(json_get(body, "dtype"), "float32");
    int axis;
    memset(s, 0, sizeof *s);
    if (!(s->name = copy_text(name))) return no_memory(why);
    if (!shape || shape->kind != JSON_ARRAY || json_length(shape) > MAX_AXES)
        return failed(why, PENSTOCK_LAYOUT_ERROR,
                      "The welcome gives field '%s' no shape of at most %d axes.", name, MAX_AXES);
    for (axis = 0; axis < (int)json_length(shape); axis++)
        if ((s->shape[axis] = json_integer(element(shape, axis), -1)) < 0)
            return failed(why, PENSTOCK_LAYOUT_ERROR,
                          "The welcome gives field '%s' a shape that is no list of lengths.", name);
    s->n_axes = (int)json_length(shape);
    if (strcmp(dtype, "float32") && strcmp(dtype, "float64"))
        return failed(why, PENSTOCK_LAYOUT_ERROR,
                      "The campaign declares field '%s' as %s; this client sends float32 and "
                      "float64.", name, dtype);
    s->dtype = strcmp(dtype, "float32") ? PENSTOCK_F64 : PENSTOCK_F32;
    s->role = strcmp(json_text(json_get(body, "role"), "state"), "input") ? ROLE_STEP : ROLE_INPUT;
    s->every = json_integer(json_get(body, "every"), 1);
    return spec_axes(s, body, why);
}

/* A field that no campaign file names, with the shape that the program gave. */
static penstock_code spec_learn(spec *s, const char *name, int n_axes, const int64_t *shape,
                                field_role role, problem *why) {
    memset(s, 0, sizeof *s);
    if (!(s->name = copy_text(name))) return no_memory(why);
    memcpy(s->shape, shape, (size_t)n_axes * sizeof *shape);
    s->role = role, s->dtype = PENSTOCK_F64, s->every = 1, s->n_axes = n_axes;
    return spec_axes(s, NULL, why);
}

/* The plan's beginning: kind, axes, sent shape. */
static int plan_begin(share *s, const spec *f, int64_t kind, size_t n_more) {
    int axis;
    s->n_plan = 2 + (size_t)f->n_axes + n_more;
    if (!(s->plan = malloc(s->n_plan * sizeof *s->plan))) return 0;
    s->plan[0] = kind, s->plan[1] = f->n_axes;
    for (axis = 0; axis < f->n_axes; axis++) s->plan[2 + axis] = f->n_kept[axis];
    return 1;
}

/* The owned values of a box that are sent, in C order: for each axis the kept indices from
 * first[axis] on, extent[axis] of them, minus the box's own start. */
static int box_take(share *s, const spec *f, const int64_t *start, const int64_t *owned) {
    const int64_t *first = s->plan + 2 + f->n_axes, *extent = first + f->n_axes;
    int64_t at[MAX_AXES] = {0};
    size_t i;
    int axis;
    if (!(s->take = malloc((s->n_sent + 1) * sizeof *s->take))) return 0;
    for (i = 0; i < s->n_sent; i++) {
        int64_t flat = 0;
        for (axis = 0; axis < f->n_axes; axis++)
            flat = flat * owned[axis] + f->kept[axis][first[axis] + at[axis]] - start[axis];
        s->take[i] = flat;
        for (axis = f->n_axes - 1; axis >= 0 && ++at[axis] == extent[axis]; axis--) at[axis] = 0;
    }
    return 1;
}

/* The share of a rank that owns a box. */
static penstock_code share_box(share *s, const spec *f, const int64_t *start,
                               const int64_t *extent, problem *why) {
    int64_t *sent_start, *sent_extent, i, last;
    int axis;
    share_free(s);
    if (!plan_begin(s, f, 0, 2 * (size_t)f->n_axes)) return no_memory(why);
    sent_start = s->plan + 2 + f->n_axes, sent_extent = sent_start + f->n_axes;
    for (axis = 0; axis < f->n_axes; axis++) {
        if (start[axis] < 0 || extent[axis] < 0 || start[axis] > f->shape[axis] ||
            extent[axis] > f->shape[axis] - start[axis])
            return failed(why, PENSTOCK_LAYOUT_ERROR,
                          "The layout of '%s' owns %lld values from %lld on on axis %d; the "
                          "declared length is %lld.", f->name, (long long)extent[axis],
                          (long long)start[axis], axis, (long long)f->shape[axis]);
        sent_start[axis] = sent_extent[axis] = 0;
        for (i = 0, last = -1; i < f->n_kept[axis]; i++) {
            int64_t global = f->kept[axis][i];
            if (global < start[axis] || global >= start[axis] + extent[axis]) continue;
            if (last >= 0 && i != last + 1)
                return failed(why, PENSTOCK_LAYOUT_ERROR,
                              "keep_components of '%s' are not contiguous in what this rank owns; "
                              "list them in ascending order, or let each rank own all components.",
                              f->name);
            if (last < 0) sent_start[axis] = i;
            sent_extent[axis]++, last = i;
        }
    }
    s->n_owned = values_of(extent, f->n_axes);
    s->n_sent = values_of(sent_extent, f->n_axes);
    if (f->reduced && !box_take(s, f, start, extent)) return no_memory(why);
    s->known = 1;
    return PENSTOCK_OK;
}

/* Where a global index lies in the sent field, or -1; position: global -> sent, axis by axis. */
static int64_t sent_index(const spec *f, int64_t *const *position, int64_t global) {
    int64_t flat = 0, of_axis[MAX_AXES];
    int axis;
    for (axis = f->n_axes - 1; axis >= 0; axis--) {
        of_axis[axis] = position[axis][global % f->shape[axis]];
        if (of_axis[axis] < 0) return -1;
        global /= f->shape[axis];
    }
    for (axis = 0; axis < f->n_axes; axis++) flat = flat * f->n_kept[axis] + of_axis[axis];
    return flat;
}

static int index_take(share *s, const spec *f, const int64_t *indices) {
    int64_t *position[MAX_AXES] = {NULL}, *sent = s->plan + 2 + f->n_axes, i, flat;
    int axis, good = (s->take = malloc((s->n_owned + 1) * sizeof *s->take)) != NULL;
    for (axis = 0; good && axis < f->n_axes; axis++) {
        good = (position[axis] = malloc((size_t)(f->shape[axis] + 1) * sizeof *sent)) != NULL;
        for (i = 0; good && i < f->shape[axis]; i++) position[axis][i] = -1;
        for (i = 0; good && i < f->n_kept[axis]; i++) position[axis][f->kept[axis][i]] = i;
    }
    for (i = 0; good && i < (int64_t)s->n_owned; i++)
        if ((flat = sent_index(f, position, indices[i])) >= 0)
            sent[s->n_sent] = flat, s->take[s->n_sent++] = i;
    s->n_plan = 2 + (size_t)f->n_axes + s->n_sent;
    for (axis = 0; axis < f->n_axes; axis++) free(position[axis]);
    return good;
}

/* The share of a rank that owns flat indices of the global field, in its own order. */
static penstock_code share_indices(share *s, const spec *f, const int64_t *indices, size_t n,
                                   problem *why) {
    char shape[256];
    size_t i, size = values_of(f->shape, f->n_axes);
    share_free(s);
    for (i = 0; i < n; i++)
        if (indices[i] < 0 || indices[i] >= (int64_t)size)
            return failed(why, PENSTOCK_LAYOUT_ERROR,
                          "The layout of '%s' owns index %lld; the declared shape %s has %zu "
                          "values, so indices go from 0 to %lld.", f->name,
                          (long long)indices[i], shape_text(f->shape, f->n_axes, shape, sizeof shape),
                          size, (long long)size - 1);
    if (!plan_begin(s, f, 1, n)) return no_memory(why);
    s->n_owned = n;
    if (f->reduced) {
        if (!index_take(s, f, indices)) return no_memory(why);
    } else {
        s->n_sent = n;
        if (n) memcpy(s->plan + 2 + f->n_axes, indices, n * sizeof *indices);
    }
    s->known = 1;
    return PENSTOCK_OK;
}

static double value_at(const penstock_array *a, size_t i) {
    switch (a->dtype) {
    case PENSTOCK_F32: return ((const float *)a->values)[i];
    case PENSTOCK_I32: return ((const int32_t *)a->values)[i];
    case PENSTOCK_I64: return (double)((const int64_t *)a->values)[i];
    case PENSTOCK_U8: return ((const uint8_t *)a->values)[i];
    default: return ((const double *)a->values)[i];
    }
}

/* Writes what is sent of an array that this rank owns, in the campaign's dtype. */
static void share_pick(const share *s, const spec *f, const penstock_array *a, void *out) {
    float *narrow = out;
    double *wide = out;
    size_t i;
    if (!s->take && a->dtype == (penstock_dtype)f->dtype) {
        if (s->n_sent) memcpy(out, a->values, s->n_sent * dtype_bytes(f->dtype));
        return;
    }
    for (i = 0; i < s->n_sent; i++) {
        double value = value_at(a, s->take ? (size_t)s->take[i] : i);
        if (f->dtype == PENSTOCK_F32) narrow[i] = (float)value;
        else wide[i] = value;
    }
}
