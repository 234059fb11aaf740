! The functions of ../c/penstock.h as Fortran sees them; used by penstock.f90 alone.
module penstock_c
  use, intrinsic :: iso_c_binding
  implicit none
  public

  type, bind(c) :: c_ranks
    integer(c_int) :: rank, size
    type(c_funptr) :: bcast, any, abort
    type(c_ptr) :: context
  end type c_ranks

  type, bind(c) :: c_value
    type(c_ptr) :: name
    real(c_double) :: value
  end type c_value

  type, bind(c) :: c_array
    type(c_ptr) :: name, values
    integer(c_size_t) :: n_values
    integer(c_int) :: dtype
  end type c_array

  integer(c_int), parameter :: f32 = 1, f64 = 2  ! codes of the wire

  interface
    function c_connect(link, ranks, alone, n_alone) bind(c, name="penstock_connect")
      import
      integer(c_int) :: c_connect
      type(c_ptr), intent(out) :: link
      type(c_ranks), intent(in), optional :: ranks
      type(c_value), intent(in) :: alone(*)
      integer(c_size_t), value :: n_alone
    end function c_connect

    function c_layout_box(link, field, n_axes, global_shape, start, extent) &
        bind(c, name="penstock_layout_box")
      import
      integer(c_int) :: c_layout_box
      type(c_ptr), value :: link
      character(kind=c_char), intent(in) :: field(*)
      integer(c_int), value :: n_axes
      integer(c_int64_t), intent(in) :: global_shape(*), start(*), extent(*)
    end function c_layout_box

    function c_layout_indices(link, field, n_axes, global_shape, indices, n_indices) &
        bind(c, name="penstock_layout_indices")
      import
      integer(c_int) :: c_layout_indices
      type(c_ptr), value :: link
      character(kind=c_char), intent(in) :: field(*)
      integer(c_int), value :: n_axes
      integer(c_int64_t), intent(in) :: global_shape(*), indices(*)
      integer(c_size_t), value :: n_indices
    end function c_layout_indices

    function c_next(link, sim) bind(c, name="penstock_next")
      import
      integer(c_int) :: c_next
      type(c_ptr), value :: link
      type(c_ptr), intent(out) :: sim
    end function c_next

    function c_close(link) bind(c, name="penstock_close")
      import
      integer(c_int) :: c_close
      type(c_ptr), value :: link
    end function c_close

    subroutine c_abandon(link, reason) bind(c, name="penstock_abandon")
      import
      type(c_ptr), value :: link
      character(kind=c_char), intent(in) :: reason(*)
    end subroutine c_abandon

    subroutine c_free(link) bind(c, name="penstock_free")
      import
      type(c_ptr), value :: link
    end subroutine c_free

    function c_error(link) bind(c, name="penstock_error")
      import
      type(c_ptr) :: c_error
      type(c_ptr), value :: link
    end function c_error

    subroutine c_pause(link, turn) bind(c, name="penstock_pause")
      import
      type(c_ptr), value :: link
      integer(c_int), value :: turn
    end subroutine c_pause

    function c_id(sim) bind(c, name="penstock_id")
      import
      integer(c_int64_t) :: c_id
      type(c_ptr), value :: sim
    end function c_id

    function c_seed(sim) bind(c, name="penstock_seed")
      import
      integer(c_int64_t) :: c_seed
      type(c_ptr), value :: sim
    end function c_seed

    function c_attempt(sim) bind(c, name="penstock_attempt")
      import
      integer(c_int64_t) :: c_attempt
      type(c_ptr), value :: sim
    end function c_attempt

    function c_role_of(sim) bind(c, name="penstock_role_of")
      import
      integer(c_int) :: c_role_of
      type(c_ptr), value :: sim
    end function c_role_of

    function c_parameter(sim, name, value) bind(c, name="penstock_parameter")
      import
      integer(c_int) :: c_parameter
      type(c_ptr), value :: sim
      character(kind=c_char), intent(in) :: name(*)
      real(c_double), intent(out) :: value
    end function c_parameter

    function c_n_parameters(sim) bind(c, name="penstock_n_parameters")
      import
      integer(c_size_t) :: c_n_parameters
      type(c_ptr), value :: sim
    end function c_n_parameters

    function c_parameter_name(sim, i) bind(c, name="penstock_parameter_name")
      import
      type(c_ptr) :: c_parameter_name
      type(c_ptr), value :: sim
      integer(c_size_t), value :: i
    end function c_parameter_name

    function c_wanted(sim, step) bind(c, name="penstock_wanted")
      import
      integer(c_int) :: c_wanted
      type(c_ptr), value :: sim
      integer(c_int32_t), value :: step
    end function c_wanted

    function c_no_time() bind(c, name="penstock_no_time")
      import
      real(c_double) :: c_no_time
    end function c_no_time

    function c_inputs(sim, fields, n_fields) bind(c, name="penstock_inputs")
      import
      integer(c_int) :: c_inputs
      type(c_ptr), value :: sim
      type(c_array), intent(in) :: fields(*)
      integer(c_size_t), value :: n_fields
    end function c_inputs

    function c_empty(sim, field, n_values, dtype, values) bind(c, name="penstock_empty")
      import
      integer(c_int) :: c_empty
      type(c_ptr), value :: sim
      character(kind=c_char), intent(in) :: field(*)
      integer(c_size_t), value :: n_values
      integer(c_int), value :: dtype
      type(c_ptr), intent(out) :: values
    end function c_empty

    function c_send(sim, t, fields, n_fields) bind(c, name="penstock_send")
      import
      integer(c_int) :: c_send
      type(c_ptr), value :: sim
      real(c_double), value :: t
      type(c_array), intent(in) :: fields(*)
      integer(c_size_t), value :: n_fields
    end function c_send

    function c_cancelled(sim) bind(c, name="penstock_cancelled")
      import
      integer(c_int) :: c_cancelled
      type(c_ptr), value :: sim
    end function c_cancelled

    function c_end(sim) bind(c, name="penstock_end")
      import
      integer(c_int) :: c_end
      type(c_ptr), value :: sim
    end function c_end

    function c_fail(sim, reason) bind(c, name="penstock_fail")
      import
      integer(c_int) :: c_fail
      type(c_ptr), value :: sim
      character(kind=c_char), intent(in) :: reason(*)
    end function c_fail

    function c_strlen(text) bind(c, name="strlen")
      import
      integer(c_size_t) :: c_strlen
      type(c_ptr), value :: text
    end function c_strlen
  end interface
end module penstock_c
