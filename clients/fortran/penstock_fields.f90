! The fields of the step that is being put together; the part of a simulation that penstock.f90
! extends.
!
! `add` takes pointers, so that what is added has to be a target and no expression: its memory is
! read by C when the step is sent.
module penstock_fields
  use, intrinsic :: iso_fortran_env, only: real32, real64
  use penstock_c
  use penstock_texts, only: name_length, named
  implicit none
  private
  public :: added, arrays, field_list

  type :: added
    character(kind=c_char) :: name(name_length + 1)
    type(c_ptr) :: values = c_null_ptr
    real(real32), allocatable :: copy32(:)  ! of values that do not lie side by side
    real(real64), allocatable :: copy64(:)
    integer(c_size_t) :: n_values = 0
    integer(c_int) :: dtype = 0
  end type added

  type :: field_list
    private
    type(added), allocatable :: fields(:)
  contains
    procedure :: clear, take
    procedure, private :: add32_0, add32_1, add32_2, add32_3, add32_4
    procedure, private :: add64_0, add64_1, add64_2, add64_3, add64_4
    generic :: add => add32_0, add32_1, add32_2, add32_3, add32_4, &
      add64_0, add64_1, add64_2, add64_3, add64_4
  end type field_list

contains

  subroutine clear(self)
    class(field_list), intent(inout) :: self

    if (allocated(self%fields)) deallocate (self%fields)
    allocate (self%fields(0))
  end subroutine clear

  ! Gives the fields to the caller; the list is empty then.
  subroutine take(self, fields)
    class(field_list), intent(inout) :: self
    type(added), allocatable, intent(out) :: fields(:)

    if (.not. allocated(self%fields)) allocate (self%fields(0))
    call move_alloc(self%fields, fields)
    allocate (self%fields(0))
  end subroutine take

  subroutine add32_0(self, name, values)
    class(field_list), intent(inout) :: self
    character(len=*), intent(in) :: name
    real(real32), pointer, intent(in) :: values
    call add_bare(self, name, c_loc(values), 1_c_size_t, f32)
  end subroutine add32_0

  subroutine add64_0(self, name, values)
    class(field_list), intent(inout) :: self
    character(len=*), intent(in) :: name
    real(real64), pointer, intent(in) :: values
    call add_bare(self, name, c_loc(values), 1_c_size_t, f64)
  end subroutine add64_0

  subroutine add32_1(self, name, values)
    class(field_list), intent(inout) :: self
    character(len=*), intent(in) :: name
    real(real32), pointer, intent(in) :: values(:)
    include "add32.inc"
  end subroutine add32_1

  subroutine add32_2(self, name, values)
    class(field_list), intent(inout) :: self
    character(len=*), intent(in) :: name
    real(real32), pointer, intent(in) :: values(:, :)
    include "add32.inc"
  end subroutine add32_2

  subroutine add32_3(self, name, values)
    class(field_list), intent(inout) :: self
    character(len=*), intent(in) :: name
    real(real32), pointer, intent(in) :: values(:, :, :)
    include "add32.inc"
  end subroutine add32_3

  subroutine add32_4(self, name, values)
    class(field_list), intent(inout) :: self
    character(len=*), intent(in) :: name
    real(real32), pointer, intent(in) :: values(:, :, :, :)
    include "add32.inc"
  end subroutine add32_4

  subroutine add64_1(self, name, values)
    class(field_list), intent(inout) :: self
    character(len=*), intent(in) :: name
    real(real64), pointer, intent(in) :: values(:)
    include "add64.inc"
  end subroutine add64_1

  subroutine add64_2(self, name, values)
    class(field_list), intent(inout) :: self
    character(len=*), intent(in) :: name
    real(real64), pointer, intent(in) :: values(:, :)
    include "add64.inc"
  end subroutine add64_2

  subroutine add64_3(self, name, values)
    class(field_list), intent(inout) :: self
    character(len=*), intent(in) :: name
    real(real64), pointer, intent(in) :: values(:, :, :)
    include "add64.inc"
  end subroutine add64_3

  subroutine add64_4(self, name, values)
    class(field_list), intent(inout) :: self
    character(len=*), intent(in) :: name
    real(real64), pointer, intent(in) :: values(:, :, :, :)
    include "add64.inc"
  end subroutine add64_4

  subroutine add_bare(self, name, values, n_values, dtype)
    class(field_list), intent(inout) :: self
    character(len=*), intent(in) :: name
    type(c_ptr), intent(in) :: values
    integer(c_size_t), intent(in) :: n_values
    integer(c_int), intent(in) :: dtype
    type(added) :: one

    one%name = named(name)
    one%values = values
    one%n_values = n_values
    one%dtype = dtype
    self%fields = [self%fields, one]
  end subroutine add_bare

  ! The fields as C takes them; they have to live as long as the result is used.
  function arrays(fields)
    type(added), intent(in), target :: fields(:)
    type(c_array) :: arrays(size(fields))
    integer :: i

    do i = 1, size(fields)
      arrays(i) = c_array(c_loc(fields(i)%name), fields(i)%values, fields(i)%n_values, &
                          fields(i)%dtype)
      if (allocated(fields(i)%copy32)) arrays(i)%values = c_loc(fields(i)%copy32)
      if (allocated(fields(i)%copy64)) arrays(i)%values = c_loc(fields(i)%copy64)
    end do
  end function arrays
end module penstock_fields
